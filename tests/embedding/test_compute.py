import numpy as np
import pytest

from twinguide.compute import array_module
from twinguide.errors import PluginError


def test_the_cpu_is_always_there():
    assert array_module("cpu") is np


def test_auto_gives_a_module_that_computes():
    xp = array_module("auto")
    assert float((xp.arange(3) * 2).sum()) == 6


def test_cuda_computes_where_there_is_a_device():
    try:
        xp = array_module("cuda")
    except PluginError as error:
        pytest.skip(f"no CUDA here: {error}")
    assert float(xp.ones(4).sum()) == 4


def test_without_a_device_cuda_is_refused_with_the_reason_and_the_next_step(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PluginError, match=r"no module cupy.*Install twinguide\[cuda\]"):
        array_module("cuda")
