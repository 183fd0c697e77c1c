"""What a Raspberry Pi tells about its heat, its supply and its clock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

HOT = 80.0
"""Degrees Celsius from which the firmware slows the cores, more and more up to the limit at 85.

By "Frequency management and thermal control" in Raspberry Pi's documentation, for all models.
"""

ALARMS = {
    "under_voltage": "the supply's voltage is too low",
    "frequency_capped": "the clock is capped",
    "throttled": "the board is throttled",
    "soft_temperature_limit": "the soft temperature limit is reached",
}
"""What the firmware does now, by bits 0-3 of `get_throttled` (Raspberry Pi's "vcgencmd").

Bits 16-19 tell what ever happened, which is no reason to act.
"""

CPU_ZONES = ("cpu-thermal", "cpu_thermal", "bcm2835_thermal")
"""What the thermal zone of a Pi's processor is called, by kernel.

A desktop's processor has another name here, and may run hotter than a Pi.
"""


@dataclass(frozen=True)
class BoardState:
    """State of the computer at one moment; None is what it does not tell.

    Attributes:
        under_voltage: The supply gives too little, now or within the last 2 s.
        frequency_capped: The firmware holds the clock below its maximum.
        throttled: The firmware slows the processor down.
        soft_temperature_limit: A Pi 3 B+ is above its first limit, 60 degrees unless configured.
        temperature: Of the processor, degrees Celsius.
        clock: Of the first core, Hz, as the kernel wants it. Where the firmware throttles, the
            processor may run slower: github.com/raspberrypi/linux/issues/2986.
        max_clock: Highest clock of the first core, Hz.
    """

    under_voltage: bool | None = None
    frequency_capped: bool | None = None
    throttled: bool | None = None
    soft_temperature_limit: bool | None = None
    temperature: float | None = None
    clock: float | None = None
    max_clock: float | None = None

    @property
    def slowed(self) -> bool:
        """Whether the firmware reports a cause for which it slows the processor down."""
        return any(getattr(self, name) for name in ALARMS)

    @property
    def alarm(self) -> str:
        """Why the board is slow or about to be, in words; empty if it is not."""
        reasons = [text for name, text in ALARMS.items() if getattr(self, name)]
        if self.temperature is not None and self.temperature >= HOT:
            reasons.append(f"the processor is at {self.temperature:.0f} degrees Celsius")
        return ", ".join(reasons)

    def as_values(self) -> dict[str, str]:
        """What is known, as texts by name and unit."""
        values = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool):
                values[field.name] = "yes" if value else "no"
            elif field.name == "temperature" and value is not None:
                values["temperature_c"] = f"{value:.1f}"
            elif value is not None:
                values[f"{field.name}_mhz"] = f"{value / 1e6:.0f}"
        return values


class BoardReader:
    """Reads what the kernel shows under /sys; what is absent or makes no sense stays unknown.

    `get_throttled` comes from Raspberry Pi's firmware driver (raspberrypi/linux, pull request
    2397). It shows what the kernel asked of the firmware within the last 2 s, and the first reader
    after a boot finds "deprecated" in the kernel's log. Kernels without that file, such as some
    for a Pi 5, still tell about the supply in `in0_lcrit_alarm` ("Kernel driver
    raspberrypi-hwmon"). The names and units of the rest are by the kernel's "sysfs thermal API" and
    "CPU performance scaling".

    Args:
        sysfs: Where the files are; they are looked for once.
    """

    def __init__(self, sysfs: Path = Path("/sys")) -> None:
        self._throttled = _first(sysfs.glob("devices/platform/soc*/*firmware/get_throttled"))
        chips = sysfs.glob("class/hwmon/hwmon*/name")
        volt = _first(file for file in chips if _text(file) == "rpi_volt")
        self._supply = volt and volt.with_name("in0_lcrit_alarm")
        zones = sysfs.glob("class/thermal/thermal_zone*/type")
        zone = _first(file for file in zones if _text(file) in CPU_ZONES)
        self._temperature = zone and zone.with_name("temp")
        self._cpu = sysfs / "devices/system/cpu/cpu0/cpufreq"

    def read(self) -> BoardState:
        """State of the computer now."""
        throttled = _number(self._throttled, base=16)
        bits: dict[str, bool | None] = dict.fromkeys(ALARMS)
        if throttled is not None:
            bits = {name: bool(throttled >> bit & 1) for bit, name in enumerate(ALARMS)}
        supply = _number(self._supply)
        if supply is not None:
            bits["under_voltage"] = bool(supply) or bool(bits["under_voltage"])
        temperature = _number(self._temperature)  # thousandths of a degree
        clock = _number(self._cpu / "scaling_cur_freq")  # kHz, as the next
        max_clock = _number(self._cpu / "cpuinfo_max_freq")
        return BoardState(
            **bits,
            temperature=None if temperature is None else temperature / 1e3,
            clock=None if clock is None else clock * 1e3,
            max_clock=None if max_clock is None else max_clock * 1e3,
        )


def _first(files: Iterable[Path]) -> Path | None:
    return min(files, default=None)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, ValueError):  # absent, or the driver has no answer, or no text at all
        return ""


def _number(file: Path | None, base: int = 10) -> int | None:
    try:
        return int(_text(file), base) if file else None
    except ValueError:
        return None
