"""What a SavedModel may hold: a TensorFlow graph is a program, so a release's is checked before it is loaded."""

from __future__ import annotations

import importlib
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from recsys.errors import ReleaseError
from recsys.stack import tf
from twintower.errors import describe, verbatim

FILES = re.compile(r"saved_model\.pb|fingerprint\.pb|variables/variables\.(index|data-\d{5}-of-\d{5})")
KINDS = frozenset({"user_object", "function", "bare_concrete_function", "variable", "constant", "captured_tensor"})
"""Objects that loading makes without running anything: no asset, table, iterator or other resource."""
COMPUTING = """
Abs Add AddN AddV2 All Any BatchMatMulV2 BiasAdd Bitcast BroadcastTo Cast ClipByValue ConcatV2 Const DisableCopyOnRead
DivNoNan Einsum Elu EnsureShape Equal Erf Erfc Exp ExpandDims Expm1 Fill Floor FloorDiv FloorMod GatherNd GatherV2
Greater GreaterEqual Identity IdentityN L2Loss LeakyRelu Less LessEqual Log Log1p LogicalAnd LogicalNot LogicalOr
MatMul Max Maximum Mean Min Minimum Mul Neg NoOp NotEqual OneHot Pack Pad PadV2 PartitionedCall Placeholder Pow Prod
Range ReadVariableOp RealDiv Reciprocal Relu Relu6 Reshape ResourceGather ResourceGatherNd Rsqrt ScatterNd SegmentMean
SegmentSum Select SelectV2 Selu Shape Sigmoid Sign Size Slice Softmax Softplus SparseSegmentMean
SparseSegmentMeanWithNumSegments SparseSegmentSum SparseSegmentSumGradV2 SparseSegmentSumWithNumSegments SplitV Sqrt
Square SquaredDifference Squeeze StatefulPartitionedCall StopGradient StridedSlice Sub Sum Tanh Tile Transpose Unpack
UnsortedSegmentSum VarHandleOp Where ZerosLike
"""
"""Ops that compute numbers from numbers, or look rows up. None reads or writes a file, or runs other code."""
SAVING = "AssignVariableOp MergeV2Checkpoints RestoreV2 SaveV2 ShardedFilename StaticRegexFullMatch StringJoin"
"""Ops that TensorFlow writes into every SavedModel for its own saver, in functions that loading never runs."""
OPS, SAVER_OPS = frozenset(COMPUTING.split()), frozenset(SAVING.split())
ADVICE = "Do not use this release: `recsys train` does not write such graphs."


def check_graph(folder: Path, beside: Collection[str] = ()) -> None:
    """Refuse a SavedModel that could do more than compute vectors; nothing of it is loaded or run.

    Args:
        folder: of the SavedModel.
        beside: names of further files, which TensorFlow does not read.

    Raises:
        ReleaseError: a file, an object or an op that a tower does not need; the message names it.
    """
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        is_known = path.is_dir() or path.name.startswith(".") or name in beside or FILES.fullmatch(name)
        if not is_known:
            raise _refused(folder, f"the file {name}", "only the files of a SavedModel without assets")
    graph = _parsed(folder)
    for place, node in enumerate(graph.object_graph_def.nodes):
        if (kind := node.WhichOneof("kind")) not in KINDS:
            raise _refused(folder, f"an object of kind {kind}", f"objects of these kinds: {', '.join(sorted(KINDS))}")
        if node.registered_name or node.registered_saver:
            named = node.registered_name or node.registered_saver
            raise _refused(folder, f"the registered class {named!r} of object {place}", "no registered classes")
    functions = {function.signature.name: function.node_def for function in graph.graph_def.library.function}
    reached = _reached(_roots(graph.object_graph_def), functions, folder)
    for name, nodes in (("graph", graph.graph_def.node), *functions.items()):
        allowed = OPS if name in reached else OPS | SAVER_OPS
        for node in nodes:
            if node.op not in allowed:
                raise _refused(folder, f"the op {node.op} in {name}", "ops that only compute")


def _parsed(folder: Path) -> Any:
    """Return the only graph of a SavedModel."""
    tf.saved_model  # noqa: B018  # checks the versions
    protos = importlib.import_module("tensorflow.core.protobuf.saved_model_pb2")
    path = folder / "saved_model.pb"
    try:
        graphs = protos.SavedModel.FromString(path.read_bytes()).meta_graphs
    except Exception as error:
        raise _refused(path, str(error) or type(error).__name__, "a SavedModel") from None
    # Another number, or none of objects, is loaded as TensorFlow 1 did: by running what the graph says.
    if len(graphs) != 1 or not graphs[0].HasField("object_graph_def"):
        raise _refused(path, f"{len(graphs)} graphs", "one graph with its objects, as TensorFlow 2 writes it")
    return graphs[0]


def _roots(objects: Any) -> Iterator[str]:
    """Yield the names of the functions that a loaded object can call."""
    yield from objects.concrete_functions
    for node in objects.nodes:
        yield from node.function.concrete_functions
        yield from filter(
            None, (node.bare_concrete_function.concrete_function_name, node.captured_tensor.concrete_function)
        )


def _reached(roots: Iterable[str], functions: dict[str, Any], folder: Path) -> set[str]:
    """Return the functions that can run, by name: these and all that they call."""
    reached: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name in reached:
            continue
        if name not in functions:
            raise _refused(folder, f"a call of the function {name!r}", "calls of functions that the graph holds")
        reached.add(name)
        for node in functions[name]:
            for value in node.attr.values():
                waiting += [each.name for each in (value.func, *value.list.func) if each.name]
    return reached


def _refused(where: Path, got: str, expected: str) -> ReleaseError:
    return ReleaseError(describe(str(where), verbatim(got), expected, ADVICE))
