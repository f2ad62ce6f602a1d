% Profiles in Octave or Matlab: octave profiles.m MNT/scan42
scan = argv(){end};

m = load(fullfile(scan, 'radial/bins=100.mat'));  % m.intensity: (bin, point, line)
if isfield(m, 'axis_q')
  place = m.axis_q;  unit = '1/nm';
else
  place = m.axis_r;  unit = 'px';                 % the geometry is unknown
end
profile = m.intensity(:, 1, 1);                   % of the first point
[highest, bin] = max(profile);
printf('%d bins, highest %g at %g %s\n', numel(profile), highest, place(bin), unit);
% semilogy(place, profile)
