"""Metadata files as beamlines and pyFAI write them."""

from __future__ import annotations

SPEC_HEAD = """\
#F /data/p10/newfile.dat
#E 1715678813
#D Tue May 14 09:26:53 2025
#C p10user  User = p10user
#O0 Theta  Two Theta  stx  sty
#O1 stz  energy

"""

SPEC_SCAN = """\
#S {number} {command}
#D Tue May 14 09:30:00 2025
#T 0.02  (Seconds)
#G0 0 0 0
#Q
#P0 0 0 1.5 -2.5
#P1 0.25 13.8
#N 4
#L stx  sty  Epoch  Seconds
0 0 120.1 0.02
0.1 0 120.2 0.02
#C Tue May 14 09:31:00 2025.  Scan aborted after 2 points.

"""


def spec(*scans: tuple[int, str], head: str = SPEC_HEAD) -> str:
    """A SPEC file with scans of these numbers and commands."""
    return head + "".join(SPEC_SCAN.format(number=n, command=command) for n, command in scans)


def fio(command: str) -> str:
    """A FIO file, as Sardana writes it at P10."""
    return f"""\
!
! Comments
!
%c
{command}
user p10user Acquisition started at Tue May 14 09:26:53 2025
!
! Parameter
!
%p
stx = 1.5
sty = -2.5
fmbenergy = 13800.0
!
! Data
!
%d
 Col 1 stx DOUBLE
 Col 2 e4m DOUBLE
 Col 3 timestamp DOUBLE
0.0 1 0.51
0.1 2 0.53
"""


def poni(**changes: str) -> str:
    """A PONI file of pyFAI for the detector of `scanfiles`; b"" leaves a line out."""
    lines = {
        "poni_version": "2.1",
        "Detector": "Detector",
        "Detector_config": '{"pixel1": 7.5e-05, "pixel2": 7.5e-05, "orientation": 3}',
        "Distance": "2.002",
        "Poni1": "0.0003",
        "Poni2": "0.00020625",
        "Rot1": "0.0",
        "Rot2": "0.0",
        "Rot3": "0.0",
        "Wavelength": "1.0003e-10",
        **changes,
    }
    text = "".join(f"{name}: {value}\n" for name, value in lines.items() if value)
    return "# Nota: C-Order, 1 refers to the Y axis, 2 to the X axis \n" + text
