import shutil
from dataclasses import astuple, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbnet_perception.core.board import BoardReader, BoardState

FIRMWARE = "devices/platform/soc/soc:firmware/get_throttled"
SUPPLY = "class/hwmon/hwmon1/in0_lcrit_alarm"
TEMPERATURE = "class/thermal/thermal_zone0/temp"
CLOCK = "devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"
MAX_CLOCK = "devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq"
PI_4 = {
    FIRMWARE: "0\n",
    "class/hwmon/hwmon0/name": "cpu_thermal\n",
    "class/hwmon/hwmon1/name": "rpi_volt\n",
    SUPPLY: "0\n",
    "class/thermal/thermal_zone0/type": "cpu-thermal\n",
    TEMPERATURE: "61342\n",
    CLOCK: "1500000\n",
    MAX_CLOCK: "1800000\n",
}
COOL = BoardState(False, False, False, False, 61.342, 1.5e9, 1.8e9)


@pytest.fixture
def board(tmp_path):
    """A function that reads a board whose files hold these texts; None takes a file away."""

    def read(files):
        folder = tmp_path / "sys"
        shutil.rmtree(folder, ignore_errors=True)
        for name, text in files.items():
            if text is not None:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return BoardReader(folder).read()

    return read


def test_a_pi_4_tells_everything(board):
    assert board(PI_4) == COOL
    assert (COOL.slowed, COOL.alarm) == (False, "")
    assert COOL.as_values() == {
        "under_voltage": "no",
        "frequency_capped": "no",
        "throttled": "no",
        "soft_temperature_limit": "no",
        "temperature_c": "61.3",
        "clock_mhz": "1500",
        "max_clock_mhz": "1800",
    }


def test_a_computer_that_tells_nothing_is_quiet(board):
    state = board({})
    assert state == BoardState()
    assert (state.slowed, state.alarm, state.as_values()) == (False, "", {})


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        pytest.param("1", (True, False, False, False), id="bit 0: under-voltage"),
        pytest.param("2", (False, True, False, False), id="bit 1: frequency capped"),
        pytest.param("4", (False, False, True, False), id="bit 2: throttled"),
        pytest.param("8", (False, False, False, True), id="bit 3: soft temperature limit"),
        pytest.param("50005", (True, False, True, False), id="hexadecimal, with what was before"),
        pytest.param("0x6", (False, True, True, False), id="as vcgencmd writes it"),
        pytest.param("f0000", (False,) * 4, id="all of it is past"),
    ],
)
def test_the_firmware_tells_what_it_does_now(board, text, bits):
    state = board({**PI_4, FIRMWARE: f"{text}\n"})
    assert astuple(state) == bits + astuple(COOL)[4:]
    assert state.slowed == any(bits)
    assert bool(state.alarm) == any(bits)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({SUPPLY: "1"}, True, id="only the sensor has seen it"),
        pytest.param({FIRMWARE: "1"}, True, id="only the firmware has seen it"),
        pytest.param({FIRMWARE: None}, False, id="no firmware file, the supply is fine"),
        pytest.param({FIRMWARE: None, SUPPLY: "1"}, True, id="no firmware file, the supply is not"),
        pytest.param({FIRMWARE: None, SUPPLY: None}, None, id="nobody tells"),
        pytest.param(
            {FIRMWARE: None, SUPPLY: "1", "class/hwmon/hwmon1/name": "nct6775"},
            None,
            id="another chip's voltage",
        ),
    ],
)
def test_either_source_tells_of_under_voltage(board, files, expected):
    assert board({**PI_4, **files}).under_voltage is expected


def test_a_firmware_at_another_address_is_found(board):
    there = "devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled"
    assert board({there: "4"}).throttled is True


def test_the_processors_zone_is_the_one_that_counts(board):
    zones = {
        "class/thermal/thermal_zone0/type": "gpu-thermal",
        TEMPERATURE: "90000",
        "class/thermal/thermal_zone1/type": "cpu-thermal",
        "class/thermal/thermal_zone1/temp": "50000",
    }
    assert board({**PI_4, **zones}).temperature == 50.0
    assert board({**PI_4, "class/thermal/thermal_zone0/type": "x86_pkg_temp"}).temperature is None


@pytest.mark.parametrize(
    ("name", "unknown"),
    [
        (FIRMWARE, ["frequency_capped", "throttled", "soft_temperature_limit"]),
        (TEMPERATURE, ["temperature"]),
        (CLOCK, ["clock"]),
        (MAX_CLOCK, ["max_clock"]),
    ],
)
@pytest.mark.parametrize(
    "text",
    [
        pytest.param(None, id="absent"),
        pytest.param("", id="empty"),
        pytest.param("ghz", id="no number"),
        pytest.param(b"\xff\x00\xfe", id="no text"),
    ],
)
def test_what_makes_no_sense_is_unknown_and_the_rest_is_still_told(board, name, unknown, text):
    state = board({**PI_4, name: text})
    assert state == replace(COOL, **dict.fromkeys(unknown))
    assert len(state.as_values()) == len(COOL.as_values()) - len(unknown)
    assert (state.slowed, state.alarm) == (False, "")


def test_a_file_that_cannot_be_read_is_unknown(board, tmp_path):
    board(PI_4)
    reader = BoardReader(tmp_path / "sys")
    shutil.rmtree(tmp_path / "sys/class")
    (tmp_path / "sys" / TEMPERATURE).mkdir(parents=True)  # as a driver that answers with an error
    assert reader.read() == replace(COOL, temperature=None)


@pytest.mark.parametrize(
    ("temperature", "alarm"),
    [
        pytest.param(79.9, "", id="below the limit"),
        pytest.param(80.0, "the processor is at 80 degrees Celsius", id="at the limit"),
    ],
)
def test_heat_alarms_before_the_firmware_slows_the_clock(temperature, alarm):
    state = BoardState(throttled=False, temperature=temperature)
    assert state.alarm == alarm
    assert not state.slowed


def test_the_alarm_names_every_reason():
    state = BoardState(under_voltage=True, frequency_capped=False, throttled=True, temperature=84.6)
    assert state.alarm == (
        "the supply's voltage is too low, the board is throttled, "
        "the processor is at 85 degrees Celsius"
    )


@given(st.binary(max_size=12))
def test_no_content_of_a_file_stops_the_reader(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp() / "garbage"
    for name in PI_4:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    state = BoardReader(folder).read()
    assert isinstance(state.alarm, str)
    assert all(isinstance(text, str) for text in state.as_values().values())
