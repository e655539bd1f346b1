"""AMD card: counters of one AMD GPU through the package amdsmi, in answer to NVML's questions. Never run on one.

The watch (measure/watch_gpu.py) asks in NVML's words. What amdsmi has no word for, such as the reasons of a throttling
and other processes' share of the computing time, is not told, and the watch says so. Names and units are those of
amdsmi 7.0's source (amdsmi_interface.py).
"""

from importlib import import_module
from typing import Any

MILLI, MICRO = 1e3, 1e6


class NoCounters(Exception):
    """The message is a clause: why this GPU's counters can't be read."""


class Numbers:
    """NVML's constants and errors, without NVML: a question about a device is declined, as AMD's handles are none."""

    def __getattr__(self, name: str) -> Any:
        import pynvml

        if not name.startswith("nvmlDevice"):
            return getattr(pynvml, name)

        def declined(*arguments: Any) -> None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

        return declined


class AmdCard:
    """One GPU. A question that amdsmi can't answer returns None, and its name is added to `not_told`."""

    def __init__(self, uuid: str | None) -> None:
        """`uuid` is Device.uuid; None: it is not known, which will do where there is one GPU. Raises NoCounters."""
        self.nvml: Any = Numbers()
        self.not_told: set[str] = set()
        try:
            amdsmi: Any = import_module("amdsmi")
        except ImportError:
            raise NoCounters("the package amdsmi is not installed") from None
        except Exception as error:  # it looks for its library while it is imported, and fails in many ways
            raise NoCounters(f"amdsmi can't be loaded ({type(error).__name__}: {error})") from None
        self._smi: Any = amdsmi
        try:
            amdsmi.amdsmi_init(amdsmi.AmdSmiInitFlags.INIT_AMD_GPUS)
            handles = amdsmi.amdsmi_get_processor_handles()
            here = [handle for handle in handles if uuid is None or self._uuid_of(handle) == uuid.lower()]
        except amdsmi.AmdSmiException as error:
            raise NoCounters(f"amdsmi declines ({error})") from None
        if len(here) != 1:
            raise NoCounters(f"amdsmi has {len(here)} of its {len(handles)} GPUs with the UUID {uuid}")
        self.handle = here[0]

    def _uuid_of(self, handle: Any) -> str:
        """As the kernel (KFD) has it: the serial number, 16 hexadecimal digits."""
        serial = str(self._smi.amdsmi_get_gpu_asic_info(handle)["asic_serial"])
        return f"gpu-{serial.removeprefix('0x').removeprefix('0X').lower():0>16}"

    def query(self, name: str, *arguments: Any) -> Any:
        """The answer to NVML's question `nvmlDeviceGet` + name, in NVML's units; None: amdsmi does not tell."""
        answers = {
            "ClockInfo": self._clock_mhz,
            "MaxClockInfo": lambda: self._clock("max_clk"),
            "PowerUsage": self._power_mw,
            "Temperature": self._temperature_c,
            "TotalEnergyConsumption": self._energy_mj,
        }
        known = self._asked(answers[name]) if name in answers else None
        if known is None and not (name == "ClockInfo" and self._is_idle()):
            self.not_told.add(name)
        return known

    def processes(self) -> dict[int, int]:
        """Process id -> bytes that the process holds on the card."""
        listed = self._asked(lambda: self._smi.amdsmi_get_gpu_process_list(self.handle))
        if listed is None:
            self.not_told.add("ComputeRunningProcesses")
        return {int(process["pid"]): int(process["memory_usage"]["vram_mem"]) for process in listed or ()}

    def used_bytes(self) -> int | None:
        """Bytes that all processes together hold on the card."""
        smi = self._smi
        used = self._asked(lambda: smi.amdsmi_get_gpu_memory_usage(self.handle, smi.AmdSmiMemoryType.VRAM))
        return None if used is None else int(used)

    def _asked(self, question: Any) -> Any:
        """The answer; None where amdsmi declines, or says "N/A"."""
        try:
            answer = question()
        except (self._smi.AmdSmiException, KeyError):  # an earlier version has other fields
            return None
        return None if answer == "N/A" else answer

    def _is_idle(self) -> bool:
        activity = self._asked(lambda: self._smi.amdsmi_get_gpu_activity(self.handle)["gfx_activity"])
        return bool(activity == 0)

    def _clock(self, field: str) -> Any:
        return self._smi.amdsmi_get_clock_info(self.handle, self._smi.AmdSmiClkType.GFX)[field]

    def _clock_mhz(self) -> Any:
        """None while the GPU is idle, when it lowers its clock."""
        return None if self._is_idle() else self._clock("clk")

    def _power_mw(self) -> float | None:
        told = self._smi.amdsmi_get_power_info(self.handle)
        watts = [told.get(name) for name in ("current_socket_power", "average_socket_power")]
        known = [value for value in watts if isinstance(value, int | float) and value > 0]
        return known[0] * MILLI if known else None

    def _temperature_c(self) -> Any:
        smi = self._smi
        hottest, now = smi.AmdSmiTemperatureType.HOTSPOT, smi.AmdSmiTemperatureMetric.CURRENT
        return smi.amdsmi_get_temp_metric(self.handle, hottest, now)

    def _energy_mj(self) -> float:
        told = self._smi.amdsmi_get_energy_count(self.handle)
        return float(told["energy_accumulator"] * told["counter_resolution"] * MILLI / MICRO)  # it counts microjoules
