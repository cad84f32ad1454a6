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

_CONVERTERS = """
    _adaptive_avg_pool2d.default _adaptive_avg_pool3d.default _cdist_forward.default
    _embedding_bag.default _native_batch_norm_legit.no_stats _native_batch_norm_legit_no_training.default
    _pad_circular.default _pdist_forward.default _prelu_kernel.default _reshape_copy.default
    _scaled_dot_product_cudnn_attention.default _scaled_dot_product_efficient_attention.default
    _scaled_dot_product_flash_attention.default _softmax.default _to_copy.default abs.default acos.default
    acosh.default adaptive_avg_pool1d.default adaptive_avg_pool2d.default adaptive_avg_pool3d.default
    add.Scalar add.Tensor addmm.default amax.default amin.default any.default any.dim any.dims
    arange.start_step argmax.default argmin.default as_strided.default asin.default asinh.default
    atan.default atan2.default atan2.out atanh.default avg_pool1d.default avg_pool2d.default
    avg_pool3d.default batch_norm.default bitwise_and.Scalar bitwise_and.Scalar_Tensor bitwise_and.Tensor
    bitwise_not.default bitwise_or.Scalar bitwise_or.Scalar_Tensor bitwise_or.Tensor bitwise_xor.Scalar
    bitwise_xor.Scalar_Tensor bitwise_xor.Tensor bmm.default cat.default ceil.default clamp.Tensor
    clamp.default clip.Tensor clip.default clone.default constant_pad_nd.default convolution.default
    copy.default cos.default cosh.default cumsum.default diagonal.default div.Scalar div.Scalar_mode
    div.Tensor div.Tensor_mode dot.default elu.default embedding.default embedding_bag.default eq.Scalar
    eq.Tensor erf.default exp.default expand.default expm1.default flip.default floor.default
    floor_divide.Scalar floor_divide.default fmod.Scalar fmod.Tensor full.default gather.default ge.Scalar
    ge.Tensor gelu.default grid_sampler.default grid_sampler_2d.default gt.Scalar gt.Tensor
    hardsigmoid.default hardtanh.default index.Tensor index_copy.default index_put.default
    index_select.default isinf.default isnan.default le.Scalar le.Tensor leaky_relu.default
    linalg_cross.default linear.default log.default log10.default log1p.default log2.default
    logical_and.default logical_not.default logical_or.default logical_xor.default lt.Scalar lt.Tensor
    matmul.default max.default max.dim max_pool1d.default max_pool2d.default max_pool3d.default
    maximum.default mean.default mean.dim min.default min.dim minimum.default mm.default mul.Scalar
    mul.Tensor mv.default native_batch_norm.default native_dropout.default native_group_norm.default
    native_layer_norm.default ne.Scalar ne.Tensor neg.default nonzero.default pad.default permute.default
    pixel_shuffle.default pixel_unshuffle.default pow.Scalar pow.Tensor_Scalar pow.Tensor_Tensor
    prod.default prod.dim_int reciprocal.default reflection_pad1d.default reflection_pad2d.default
    reflection_pad3d.default relu.default remainder.Scalar remainder.Tensor repeat.default
    replication_pad1d.default replication_pad2d.default replication_pad3d.default reshape.default
    resize_.default roll.default round.default rsqrt.default scalar_tensor.default
    scaled_dot_product_attention.default scatter.src scatter.value select.int sigmoid.default sign.default
    sin.default sinh.default slice.Tensor slice_scatter.default softplus.default sort.default split.Tensor
    split.sizes split_with_sizes.default sqrt.default squeeze.dim squeeze.dims sub.Scalar sub.Tensor
    sum.default sum.dim_IntList sym_numel.default sym_size.int tan.default tanh.default tile.default
    topk.default trunc.default unsqueeze.default upsample_bicubic2d.vec upsample_bilinear2d.vec
    upsample_linear1d.vec upsample_nearest1d.vec upsample_nearest2d.vec upsample_nearest3d.vec
    upsample_trilinear3d.vec view.default where.self
"""

REMOVED = frozenset({"_assert_scalar.default", "_assert_tensor_metadata.default"})
"""Checks that Torch-TensorRT takes out before it converts."""

CONVERTED = frozenset(_CONVERTERS.split())
"""Names without the leading ``aten.``."""


def exported_operators(program: torch.export.ExportedProgram) -> Counter[str]:
    """Return how often each operator occurs in a program, decomposed as for TensorRT, without ``aten.``."""
    graph: Any = program.run_decompositions().graph
    return Counter(
        str(node.target).removeprefix("aten.") for node in graph.nodes if node.op == "call_function"
    )


def unconverted_operators(operators: Iterable[str]) -> list[str]:
    """Return those of a program's operators that TensorRT cannot take over, sorted; empty is good."""
    return sorted(name for name in operators if name not in CONVERTED | REMOVED)
