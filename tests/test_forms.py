"""Who decides which form of a computation is taken, and when."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_lite import forms
from fedjax_lite.models.convolution import matmul_conv


def sine(x):
    """Of which a CPU's and an accelerator's form differ, as no others may."""
    return forms.by_platform(x, cpu=jnp.sin, accelerator=jnp.cos)


@pytest.mark.deep
def test_what_is_asked_decides(monkeypatch):
    monkeypatch.delenv(forms.VARIABLE, raising=False)
    assert forms.requested() == "auto" and forms.cpu() and not forms.cpu(platform=False)
    with forms.use("accelerator"):
        assert forms.requested() == "accelerator" and not forms.cpu() and not forms.cpu(platform=True)
        with forms.use("cpu"):
            assert forms.requested() == "cpu" and forms.cpu(platform=False)
        assert forms.requested() == "accelerator"
    assert forms.requested() == "auto"


@pytest.mark.deep
def test_the_environment_asks_unless_a_context_does(monkeypatch):
    monkeypatch.setenv(forms.VARIABLE, "accelerator")
    assert forms.requested() == "accelerator" and not forms.cpu()
    with forms.use("auto"):
        assert forms.cpu()
    monkeypatch.setenv(forms.VARIABLE, "")
    assert forms.requested() == "auto"


@pytest.mark.parametrize("ask", [forms.requested, forms.cpu, lambda: sine(1.0)])
def test_an_unknown_form_in_the_environment_is_refused(ask, monkeypatch):
    monkeypatch.setenv(forms.VARIABLE, "gpu")
    with pytest.raises(ValueError, match="environment variable FEDJAX_LITE_FORMS: must be one of auto, cpu, accelerator, got 'gpu'"):
        ask()


def test_an_unknown_form_is_refused_and_nothing_changes():
    before = forms.requested()
    with pytest.raises(ValueError, match="forms.use: must be one of auto, cpu, accelerator, got 'tpu'"), forms.use("tpu"):
        pass
    assert forms.requested() == before


def test_no_program_outlives_the_forms_that_it_was_compiled_in():
    program, x = jax.jit(sine), np.float32(1)
    with forms.use("cpu"):
        assert program(x) == pytest.approx(np.sin(1))
        with pytest.raises(ZeroDivisionError), forms.use("accelerator"):
            assert program(x) == pytest.approx(np.cos(1))
            raise ZeroDivisionError
        assert program(x) == pytest.approx(np.sin(1))


@pytest.mark.parametrize(("asked", "kept"), [("auto", {"sine", "cosine"}), ("cpu", {"sine"}), ("accelerator", {"cosine"})])
def test_one_exported_program_serves_several_platforms_unless_somebody_asks(asked, kept):
    with forms.use(asked):
        exported = jax.export.export(jax.jit(sine), platforms=["cpu", "cuda", "tpu"])(jax.ShapeDtypeStruct((), np.float32))
    assert set(re.findall(r"stablehlo\.(sine|cosine)", exported.mlir_module())) == kept


def test_a_convolution_is_lowered_in_the_form_asked_for():
    """A CPU's is given to XLA as one, an accelerator's is a product of patches."""
    operands = np.ones((2, 6, 6, 3), np.float32), np.ones((3, 3, 3, 4), np.float32)

    def conv(x, w):
        return matmul_conv(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    for name, taken in (
        ("auto", {"cpu": "convolution", "tpu": "dot_general"}),
        ("accelerator", dict.fromkeys(("cpu", "tpu"), "dot_general")),
    ):
        with forms.use(name):
            for platform, operation in taken.items():
                lowered = jax.jit(conv).trace(*operands).lower(lowering_platforms=(platform,)).as_text()
                assert set(re.findall(r"stablehlo\.(convolution|dot_general)", lowered)) == {operation}, (name, platform)
