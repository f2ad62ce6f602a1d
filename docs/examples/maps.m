% Maps in Octave or Matlab: octave maps.m MNT/scan42
scan = argv(){end};

m = load(fullfile(scan, 'dpc/full.mat'));        % m.x, m.y: (line, point)
deflection = hypot(m.x, m.y);
printf('deflection: %d lines, %d points, mean %g px\n', size(deflection), mean(deflection(:)));
disp(m.about)                                    % where it comes from

t = csvread(fullfile(scan, 'darkfield/full.csv'), 3, 0);   % below three lines of header
printf('darkfield: mean %g counts\n', mean(t(:)));
% imagesc(deflection); axis image; colorbar
