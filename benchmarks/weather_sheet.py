"""A contact sheet of every weather at every severity over a synthetic scene.

One row for each condition, the clear picture first, then severity 1 to 5. The pictures come from
the project's own synthetic drives, so that the sheet may be published.

    python benchmarks/weather_sheet.py OUT.jpg [--scene 58] [--seconds 0] [--seed 1]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from mbnet_perception.core.scene import DrivingScene
from mbnet_perception.core.weather import CONDITIONS, SEVERITIES, apply_weather

SIZE = (416, 312)  # pictures are made at the size of training
CELL = (240, 180)
BORDER = 4
QUALITY = 80


def cell(rgb: np.ndarray, label: str) -> np.ndarray:
    """A small BGR picture with its label in the upper left corner."""
    small = cv2.resize(rgb[..., ::-1], CELL, interpolation=cv2.INTER_AREA)
    font, size = cv2.FONT_HERSHEY_SIMPLEX, 0.42
    (width, height), _ = cv2.getTextSize(label, font, size, 1)
    cv2.rectangle(small, (0, 0), (width + 8, height + 10), (0, 0, 0), -1)
    cv2.putText(small, label, (4, height + 4), font, size, (255, 255, 255), 1, cv2.LINE_AA)
    sides = [BORDER // 2] * 4
    return cv2.copyMakeBorder(small, *sides, cv2.BORDER_CONSTANT, value=(255, 255, 255))


def main() -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="the JPEG file to write")
    parser.add_argument("--scene", type=int, default=58, help="seed of the drive (%(default)s)")
    parser.add_argument("--seconds", type=float, default=0, help="into the drive (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the weather (%(default)s)")
    args = parser.parse_args()
    image = np.ascontiguousarray(DrivingScene(args.scene, SIZE).render(args.seconds)[0][..., ::-1])
    rows = []
    for condition in CONDITIONS[1:]:
        row = [cell(image, "clear")]
        for severity in SEVERITIES:
            weather = apply_weather(image, condition, severity, args.seed)
            row.append(cell(weather, f"{condition.replace('_', ' + ')} {severity}"))
        rows.append(np.concatenate(row, axis=1))
    sheet = np.concatenate(rows)
    if not cv2.imwrite(str(args.out), sheet, [cv2.IMWRITE_JPEG_QUALITY, QUALITY]):
        raise SystemExit(f"error: cannot write {args.out}")
    print(f"{args.out}: {sheet.shape[1]}x{sheet.shape[0]}, {args.out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
