"""Promises about the code itself: who compiles, what the engine knows, that public names are documented and usable."""

import ast
import builtins
import doctest
import importlib
import inspect
import pkgutil
import symtable
from pathlib import Path

import pytest

import fedjax_lite as fl

pytestmark = pytest.mark.quick
PACKAGE = Path(fl.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))


def calls_jit(tree):
    return any(isinstance(node, ast.Attribute) and node.attr == "jit" for node in ast.walk(tree))


def test_only_the_runner_the_tuner_the_study_and_the_checks_compile():
    compiling = {
        str(path.relative_to(PACKAGE)) for path in SOURCES if path.parent.name != "checks" and calls_jit(ast.parse(path.read_text()))
    }
    assert compiling == {"engine/compute.py", "engine/tune.py", "runner/compiled.py", "runner/segments.py"}


def identifiers(tree):
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} | {
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)
    }


def test_the_engine_knows_no_algorithm():
    for name in (
        "federate.py",
        "clients.py",
        "batches.py",
        "simulate.py",
        *(f"engine/{path.name}" for path in (PACKAGE / "engine").glob("*.py")),
    ):
        known = identifiers(ast.parse((PACKAGE / name).read_text())) & {*fl.algorithms.__all__, *fl.aggregators.__all__}
        assert not known, f"{name} mentions {known}"


def test_one_module_decides_which_form_of_a_computation_is_taken():
    """What else asks for the backend asks about hardware: how many devices, what lies in a CPU's memory."""
    known = {str(path.relative_to(PACKAGE)): identifiers(ast.parse(path.read_text())) for path in SOURCES}
    asking = {
        name: {path for path in known if name in known[path]} for name in ("platform_dependent", "register_lowering", "default_backend")
    }
    assert asking == {
        "platform_dependent": {"forms.py"},
        "register_lowering": {"models/convolution.py"},  # which asks forms what to lower
        "default_backend": {"forms.py", "cli/options.py", "runner/memory.py", "engine/placement.py"},
    }


def test_one_module_knows_what_a_name_of_a_metric_means():
    """Others look a metric up by the name that they give it; what a name begins or ends with, or has in it, is asked of metrics.py."""
    parts = {"test_", "train_", "_accuracy", "_loss", "accuracy", "perplexity"}
    knowing = {
        str(path.relative_to(PACKAGE))
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in parts
    }
    reporting = {"models/losses/sigmoid.py", "models/losses/softmax.py"}
    assert knowing == {"metrics.py", *reporting, "configuration/distillation.py"}  # which report an accuracy, and weigh by it


def rooms_that_import():
    """room -> those that it imports; a room is a folder of the package, or a file beside the folders."""
    found = {}
    for path in SOURCES:
        here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        imports = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom) and node.module]
        names = [f"{node.module}.{each.name}" for node in imports for each in node.names if node.module.startswith("fedjax_lite")]
        found.setdefault(here, set()).update({name.split(".")[1] for name in names} - {here})
    return found


def test_rooms_stand_on_each_other_in_no_circle():
    below = {room: rooms for room, rooms in rooms_that_import().items() if room != "__init__"}
    while done := [room for room, rooms in below.items() if not rooms & below.keys()]:
        for room in done:
            del below[room]
    assert not below


def test_the_root_is_the_reading_list_of_a_round():
    assert len(list(PACKAGE.glob("*.py"))) <= 21
    importing = rooms_that_import()
    assert {room for room, rooms in importing.items() if "configuration" in rooms} == {"cli"}
    assert "privacy" not in importing["federate"] | importing["clients"]


def test_the_contract_is_short():
    assert len((PACKAGE / "base.py").read_text().splitlines()) < 200


def test_no_file_is_more_than_one_idea():
    long = {path.name: n for path in SOURCES if (n := len(path.read_text().splitlines())) > 300}
    assert not long


def test_every_public_name_is_documented():
    modules = [fl, fl.aggregators, fl.algorithms, fl.availability, fl.clock, fl.data, fl.distill, fl.models]
    modules += [fl.partition, fl.sampling, fl.schedules, fl.uplink]
    for module in modules:
        for name in getattr(module, "__all__"):
            value = getattr(module, name)
            if inspect.isfunction(value) or inspect.isclass(value):
                first = (inspect.getdoc(value) or "").split("\n")[0]
                assert len(first) > 15 and first.strip()[-1] in ".:", f"{module.__name__}.{name}: {first!r}"


def test_every_public_function_has_an_example():
    modules = [fl, *(value for name in fl.__all__ if inspect.ismodule(value := getattr(fl, name)))]
    functions = [value for module in modules for name in module.__all__ if inspect.isfunction(value := getattr(module, name))]
    without = {f"{function.__module__}.{function.__name__}" for function in functions if ">>>" not in (function.__doc__ or "")}
    assert len(functions) > 100 and not without


def undefined(example, module):
    """The names that an example takes from nowhere: neither its own, nor its module's, nor Python's."""
    tables = [symtable.symtable(example, module.__name__, "exec")]
    for table in tables:
        tables += table.get_children()
    own = {name.get_name() for name in tables[0].get_symbols() if name.is_assigned() or name.is_imported()}
    taken = {name.get_name() for table in tables for name in table.get_symbols() if name.is_global() or table is tables[0]}
    return taken - own - {*vars(module), *dir(builtins)}


def test_what_examples_name_exists():
    """Most examples are run in the deep tier alone; a name that left with its import is seen here."""
    names = [found.name for found in pkgutil.walk_packages(fl.__path__, "fedjax_lite.") if "__main__" not in found.name]
    examples = [
        (test.name, "".join(line.source for line in test.examples), module)
        for module in map(importlib.import_module, names)
        for test in doctest.DocTestFinder().find(module, globs={})
    ]
    missing = {name: lost for name, example, module in examples if (lost := undefined(example, module))}
    assert len(examples) > 200 and not missing
