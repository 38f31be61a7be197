"""A broken environment is explained before the linker can complain."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from recsys.stack import cpu_flags


def run(code: str, *, path: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, **environment}
    if path is not None:
        variables["PYTHONPATH"] = str(path)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=variables, check=False)


@pytest.fixture
def other_versions(tmp_path: Path):
    """Return a function that puts distributions of other versions in front of the installed ones."""

    def pretend(**versions: str) -> Path:
        for name, version in versions.items():
            folder = tmp_path / f"{name}-{version}.dist-info"
            folder.mkdir()
            said = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n"
            (folder / "METADATA").write_text(said)
        return tmp_path

    return pretend


def test_a_tensorflow_that_breaks_scann_is_named_with_the_line_to_run(other_versions):
    done = run("from recsys.stack import scann; scann.scann_ops_pybind", path=other_versions(tensorflow="2.21.0"))
    assert "InstallationError" in done.stderr
    assert "tensorflow is 2.21.0, expected 2.20: ScaNN 1.4.2 is linked against TensorFlow 2.20" in done.stderr
    assert "Run: python -m pip install 'tensorflow==2.20.*'" in done.stderr
    assert "undefined symbol:" not in done.stderr


def test_tensorflow_itself_gives_the_same_explanation(other_versions):
    done = run("from recsys.stack import tf; tf.constant(1)", path=other_versions(scann="1.5.0"))
    assert "scann is 1.5.0, expected 1.4.2" in done.stderr


def test_doctor_reports_a_broken_pair_and_fails(other_versions):
    code = "import sys; sys.argv = ['recsys', 'doctor']; from recsys.cli import main; main()"
    done = run(code, path=other_versions(tf_keras="2.21.0"), COLUMNS="200")
    assert done.returncode == 1
    assert "tf-keras is 2.21.0, expected 2.20" in done.stdout
    assert "2.21.0" in done.stdout


def test_doctor_is_content_with_this_environment():
    done = run("import sys; sys.argv = ['recsys', 'doctor']; from recsys.cli import main; main()", COLUMNS="200")
    assert done.returncode == 0, done.stdout
    used = "AVX2" if {"avx2", "fma"} <= cpu_flags() else "its baseline instructions"
    assert f"ScaNN searches with {used}" in done.stdout
    assert "everything fits" in done.stdout


def test_scann_uses_avx2_also_where_tensorflow_recommenders_imports_it_first():
    code = "from recsys import stack; stack.tfrs.metrics; first = stack.scann_kernels(); stack.scann.scann_ops_pybind"
    done = run(f"{code}; print(first, stack.scann_kernels(), sep='|')")
    used = "AVX2" if {"avx2", "fma"} <= cpu_flags() else "its baseline instructions"
    assert done.stdout.strip() == f"its baseline instructions|{used}"


def test_scann_comes_without_tensorflow_which_can_still_be_imported_afterwards():
    code = "import sys; from recsys.stack import scann, tf, tfrs; scann.scann_ops_pybind"
    later = "tfrs.metrics; print(tf.constant(1).numpy(), scann.scann_ops_pybind.__name__)"
    done = run(f"{code}; print('tensorflow' in sys.modules); {later}")
    assert done.stdout.splitlines() == ["False", "1 scann.scann_ops.py.scann_ops_pybind"], done.stderr


def test_keras_3_is_refused_with_the_flag_to_set():
    done = run("from recsys.stack import tf; tf.constant(1)", TF_USE_LEGACY_KERAS="0")
    assert "TF_USE_LEGACY_KERAS is '0'" in done.stderr
    assert "Run: export TF_USE_LEGACY_KERAS=1" in done.stderr


def test_importing_the_stack_costs_nothing_until_it_is_used():
    done = run("import sys; from recsys.stack import tf, tfrs, scann; print('tensorflow' in sys.modules)")
    assert done.stdout.strip() == "False"


def test_the_library_uses_keras_2():
    done = run("from recsys.stack import tf; print(tf.keras.__name__)", TF_USE_LEGACY_KERAS="1")
    assert "tf_keras" in done.stdout
