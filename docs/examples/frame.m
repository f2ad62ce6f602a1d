% One detector frame in Octave: octave frame.m MNT/scan42
scan = argv(){end};

m = load(fullfile(scan, 'frames/000000.mat'));    % m.data: (row, column), the detector's dtype
picture = imread(fullfile(scan, 'frames/000000.tif'));
printf('%d rows, %d columns, %s\n', size(m.data), class(m.data));
printf('tif is the same: %d\n', isequal(picture, m.data));

% Without load: skip the header of the npy, then numbers in C order.
f = fopen(fullfile(scan, 'frames/000000.npy'));
fseek(f, 4096);
numbers = fread(f, fliplr(size(m.data)), ['*' class(m.data)])';
fclose(f);
printf('npy is the same: %d\n', isequal(numbers, m.data));
