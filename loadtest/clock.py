"""Sleep until an exact time without spinning: libev's own timers wait in whole milliseconds, a timerfd in microseconds.

Linux only (timerfd_create(2)).
"""

import ctypes
import os

import gevent

MONOTONIC = 1
NONBLOCK = 0o4000
ABSOLUTE = 1


class _Time(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Setting(ctypes.Structure):
    _fields_ = (("interval", _Time), ("value", _Time))


class Timer:
    """One sleeper at a time. OSError where there is no timerfd."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._file = self._libc.timerfd_create(MONOTONIC, NONBLOCK)
        if self._file < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._hub = gevent.get_hub()
        self._watcher = self._hub.loop.io(self._file, 1)

    def until(self, when: float) -> None:
        """Let others run until `when`, of time.perf_counter(); at least once, if that is past."""
        seconds = max(when, 1e-9)
        whole = int(seconds)
        setting = _Setting(_Time(0, 0), _Time(whole, max(int((seconds - whole) * 1e9), 1)))
        if self._libc.timerfd_settime(self._file, ABSOLUTE, ctypes.byref(setting), None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")
        self._hub.wait(self._watcher)

    def close(self) -> None:
        """Give it back."""
        self._watcher.close()
        os.close(self._file)
