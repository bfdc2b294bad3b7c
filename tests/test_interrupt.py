"""SIGTERM ends a command in the foreground and in the background."""

import os
import signal
import time

import pytest

from msm_jax import interrupt


@pytest.fixture
def handlers():
  before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
  yield
  for number, handler in before.items():
    signal.signal(number, handler)


@pytest.mark.parametrize("of_sigint", [signal.default_int_handler, signal.SIG_IGN])
def test_sigterm_is_an_interrupt_where_ctrl_c_is_ignored_too(handlers, of_sigint):
  signal.signal(signal.SIGINT, of_sigint)
  interrupt.listen()
  with pytest.raises(KeyboardInterrupt):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)


def test_who_listens_to_ctrl_c_hears_of_sigterm(handlers):
  heard = []
  signal.signal(signal.SIGINT, lambda *_: heard.append("interrupt"))
  interrupt.listen()
  os.kill(os.getpid(), signal.SIGTERM)
  assert heard == ["interrupt"]
