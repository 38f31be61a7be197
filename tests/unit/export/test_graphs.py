"""A graph that could do more than compute a vector is refused before anything of it is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from recsys.errors import ReleaseError
from recsys.export.saved_model import GraphTower, save_tower
from recsys.forward import packed
from recsys.layers import BagLookup, Dense, HistoryLookup, Lookup, Perceptron, Tables
from recsys.stack import tf

CODES = {
    "town": np.array([0, 3], np.int32),
    "tags": np.array([[1, -1], [2, 3]], np.int32),
    "price": np.array([[0.5], [-1.0]], np.float32),
    "met": packed(np.array([[2, 0], [1, -1]], np.int32), np.array([[1.0, 2.5], [0.5, 1.0]]), np.zeros((2, 2))),
}


class Encoded:
    """The shape and type of a feature's codes, as an encoder has them."""

    def __init__(self, codes: np.ndarray) -> None:
        self.shape, self.dtype = codes.shape[1:], codes.dtype


ENCODED = {name: Encoded(codes) for name, codes in CODES.items()}


def tower(activation: str = "relu", policy: str = "float32", pooling: str = "mean") -> Perceptron:
    tables = Tables()
    features = {
        "town": Lookup(tables.get("town", 5, 4, 1), name="town", unknown_rate=0.1),
        "tags": BagLookup(tables.get("tags", 5, 4, 1), pooling, name="tags"),
        "price": Dense(1, name="price"),
        "met": HistoryLookup(tables.get("met", 5, 4, 1), pooling, name="met"),
    }
    made = Perceptron(features, (8,), 4, activation, 0.1, policy=policy, augmented=True, name="tower")
    made({name: tf.constant(codes) for name, codes in CODES.items()})
    return made


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("activation", ["relu", "gelu", "selu", "tanh"])
@pytest.mark.parametrize("largest", [1, 2**22])
def test_every_tower_that_training_writes_loads_and_answers_as_before(
    tmp_path, monkeypatch, activation, policy, largest
):
    monkeypatch.setattr("recsys.bag_sums.LARGEST_DENSE_GRADIENT", largest)
    trained = tower(activation, policy, "sqrt" if largest == 1 else "mean")
    save_tower(trained, ENCODED, tmp_path / "tower")
    expected = trained({name: tf.constant(codes) for name, codes in CODES.items()}).numpy()
    # bfloat16 has 8 bits: a graph may round where single ops, which fuse less, do not
    tolerance = 1e-6 if policy == "float32" else 2**-6
    np.testing.assert_allclose(GraphTower(tmp_path / "tower")(CODES), expected, atol=tolerance)


def doctored(folder: Path, body, **attributes) -> Path:
    """Write a SavedModel with the signature of a tower that does something else, too."""
    module = tf.Module()
    for name, value in attributes.items():
        setattr(module, name, value)

    @tf.function(input_signature=[{"town": tf.TensorSpec([None], tf.int32, "town")}])
    def encode(codes):
        return {"vectors": tf.cast(codes["town"], tf.float32)[:, None] + body()}

    module.encode = encode
    tf.saved_model.save(module, str(folder), signatures={"encode": encode})
    return folder


def length_of(path: Path) -> tf.Tensor:
    return tf.cast(tf.strings.length(tf.io.read_file(str(path))), tf.float32)


def written(path: Path) -> tf.Tensor:
    with tf.control_dependencies([tf.io.write_file(str(path), "taken")]):
        return tf.constant(0.0)


def in_a_branch(path: Path) -> tf.Tensor:
    return tf.cond(tf.constant(True), lambda: length_of(path), lambda: 0.0)


def in_a_called_function(path: Path) -> tf.Tensor:
    return tf.function(lambda: tf.function(lambda: length_of(path))())()


def by_python(path: Path) -> tf.Tensor:
    return tf.reshape(tf.py_function(lambda: float(len(path.read_text())), [], tf.float32), [])


def by_numpy(path: Path) -> tf.Tensor:
    return tf.reshape(tf.numpy_function(lambda: np.float32(len(path.read_text())), [], tf.float32), [])


def saved(path: Path) -> tf.Tensor:
    with tf.control_dependencies(
        [tf.raw_ops.SaveV2(prefix=str(path), tensor_names=["x"], shape_and_slices=[""], tensors=[tf.constant(1)])]
    ):
        return tf.constant(0.0)


def restored(path: Path) -> tf.Tensor:
    return tf.raw_ops.RestoreV2(prefix=str(path), tensor_names=["x"], shape_and_slices=[""], dtypes=[tf.float32])[0]


def printed(path: Path) -> tf.Tensor:
    with tf.control_dependencies([tf.print("taken", output_stream=f"file://{path}")]):
        return tf.constant(0.0)


def listed(path: Path) -> tf.Tensor:
    return tf.cast(tf.size(tf.io.matching_files(f"{path.parent}/*")), tf.float32)


def by_a_data_set(path: Path) -> tf.Tensor:
    return tf.data.TextLineDataset(str(path)).reduce(0.0, lambda count, line: count + 1.0)


@pytest.mark.parametrize(
    ("body", "op"),
    [
        (length_of, "ReadFile"),
        (written, "WriteFile"),
        (in_a_branch, "If|StatelessIf|ReadFile|StringLength"),
        (in_a_called_function, "ReadFile|StringLength"),
        (by_python, "EagerPyFunc"),
        (by_numpy, "PyFunc"),
        (saved, "SaveV2"),
        (restored, "RestoreV2"),
        (printed, "PrintV2|StringFormat"),
        (listed, "MatchingFiles"),
        (by_a_data_set, "Dataset"),
    ],
)
def test_an_op_that_does_more_than_compute_is_refused_by_name_and_does_nothing(tmp_path, body, op):
    # given
    target = tmp_path / "target"
    target.write_text("mine")
    folder = doctored(tmp_path / "tower", lambda: body(target))
    target.write_text("mine")
    # then
    with pytest.raises(ReleaseError, match=rf"tower: got the op \w*({op})\w* in .*expected ops that only compute"):
        GraphTower(folder)
    assert target.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["target", "tower"]


def test_a_table_that_is_filled_from_a_file_is_refused(tmp_path):
    (tmp_path / "words").write_text("a\nb\n")
    line, number = tf.lookup.TextFileIndex.WHOLE_LINE, tf.lookup.TextFileIndex.LINE_NUMBER
    initializer = tf.lookup.TextFileInitializer(str(tmp_path / "words"), tf.string, line, tf.int64, number)
    table = tf.lookup.StaticHashTable(initializer, -1)
    folder = doctored(tmp_path / "tower", lambda: tf.cast(table.size(), tf.float32), table=table)
    with pytest.raises(ReleaseError, match=r"got the file assets/words|an object of kind resource"):
        GraphTower(folder)
    shutil.rmtree(folder / "assets")
    with pytest.raises(ReleaseError, match="an object of kind "):
        GraphTower(folder)


def test_a_graph_of_tensorflow_1_which_is_run_to_be_loaded_is_refused(tmp_path):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        said = tf.compat.v1.placeholder(tf.float32)
        builder = tf.compat.v1.saved_model.Builder(str(tmp_path / "tower"))
        signature = tf.compat.v1.saved_model.predict_signature_def({"town": said}, {"vectors": said})
        builder.add_meta_graph_and_variables(session, ["serve"], {"encode": signature}, main_op=tf.no_op())
        builder.save()
    with pytest.raises(ReleaseError, match="expected one graph with its objects, as TensorFlow 2 writes it"):
        GraphTower(tmp_path / "tower")


@pytest.mark.parametrize("content", [b"", b"no graph", b"\xff" * 100])
def test_a_file_that_is_no_graph_is_refused(tmp_path, content):
    save_tower(tower(), ENCODED, tmp_path / "tower")
    (tmp_path / "tower" / "saved_model.pb").write_bytes(content)
    with pytest.raises(ReleaseError, match=r"saved_model\.pb"):
        GraphTower(tmp_path / "tower")


@pytest.mark.parametrize("name", ["saved_model.pbtxt", "saved_model.cpb", "assets.extra/code.so", "variables/other"])
def test_a_further_file_is_refused(tmp_path, name):
    save_tower(tower(), ENCODED, tmp_path / "tower")
    path = tmp_path / "tower" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({}))
    with pytest.raises(ReleaseError, match=f"got the file {name}"):
        GraphTower(tmp_path / "tower")
