"""Which operators of a network TensorRT takes over, without a GPU: its graph against the list of converters.

The list holds the ATen operators that Torch-TensorRT 2.14 registers converters for
(py/torch_tensorrt/dynamo/conversion/aten_ops_converters.py). An operator outside it would stay in torch and
cut the engine in two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# each with its overloads; no overload stands for `default`
_CONVERTERS = """
    _adaptive_avg_pool2d _adaptive_avg_pool3d _cdist_forward _embedding_bag
    _native_batch_norm_legit.no_stats _native_batch_norm_legit_no_training _pad_circular _pdist_forward
    _prelu_kernel _reshape_copy _scaled_dot_product_cudnn_attention _scaled_dot_product_efficient_attention
    _scaled_dot_product_flash_attention _softmax _to_copy abs acos acosh adaptive_avg_pool1d
    adaptive_avg_pool2d adaptive_avg_pool3d add.Scalar|Tensor addmm amax amin any.default|dim|dims
    arange.start_step argmax argmin as_strided asin asinh atan atan2.default|out atanh avg_pool1d avg_pool2d
    avg_pool3d batch_norm bitwise_and.Scalar|Scalar_Tensor|Tensor bitwise_not
    bitwise_or.Scalar|Scalar_Tensor|Tensor bitwise_xor.Scalar|Scalar_Tensor|Tensor bmm cat ceil
    clamp.Tensor|default clip.Tensor|default clone constant_pad_nd convolution copy cos cosh cumsum diagonal
    div.Scalar|Scalar_mode|Tensor|Tensor_mode dot elu embedding embedding_bag eq.Scalar|Tensor erf exp
    expand expm1 flip floor floor_divide.Scalar|default fmod.Scalar|Tensor full gather ge.Scalar|Tensor gelu
    grid_sampler grid_sampler_2d gt.Scalar|Tensor hardsigmoid hardtanh index.Tensor index_copy index_put
    index_select isinf isnan le.Scalar|Tensor leaky_relu linalg_cross linear log log10 log1p log2
    logical_and logical_not logical_or logical_xor lt.Scalar|Tensor matmul max.default|dim max_pool1d
    max_pool2d max_pool3d maximum mean.default|dim min.default|dim minimum mm mul.Scalar|Tensor mv
    native_batch_norm native_dropout native_group_norm native_layer_norm ne.Scalar|Tensor neg nonzero pad
    permute pixel_shuffle pixel_unshuffle pow.Scalar|Tensor_Scalar|Tensor_Tensor prod.default|dim_int
    reciprocal reflection_pad1d reflection_pad2d reflection_pad3d relu remainder.Scalar|Tensor repeat
    replication_pad1d replication_pad2d replication_pad3d reshape resize_ roll round rsqrt scalar_tensor
    scaled_dot_product_attention scatter.src|value select.int sigmoid sign sin sinh slice.Tensor
    slice_scatter softplus sort split.Tensor|sizes split_with_sizes sqrt squeeze.dim|dims sub.Scalar|Tensor
    sum.default|dim_IntList sym_numel sym_size.int tan tanh tile topk trunc unsqueeze upsample_bicubic2d.vec
    upsample_bilinear2d.vec upsample_linear1d.vec upsample_nearest1d.vec upsample_nearest2d.vec
    upsample_nearest3d.vec upsample_trilinear3d.vec view where.self
"""

# checks that Torch-TensorRT takes out before it converts
REMOVED = frozenset({"_assert_scalar.default", "_assert_tensor_metadata.default"})

# names without the leading `aten.`
CONVERTED = frozenset(
    f"{name}.{overload}"
    for name, _, overloads in (entry.partition(".") for entry in _CONVERTERS.split())
    for overload in (overloads or "default").split("|")
)


def exported_operators(program: torch.export.ExportedProgram) -> Counter[str]:
    """Return how often each operator occurs in a program, decomposed as for TensorRT, without ``aten.``."""
    graph: Any = program.run_decompositions().graph
    return Counter(
        str(node.target).removeprefix("aten.") for node in graph.nodes if node.op == "call_function"
    )


def unconverted_operators(operators: Iterable[str]) -> list[str]:
    """Return those of a program's operators that TensorRT cannot take over, sorted; empty is good."""
    return sorted(name for name in operators if name not in CONVERTED | REMOVED)
