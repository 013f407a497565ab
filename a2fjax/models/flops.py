"""Counts the floating-point operations of a function from its jaxpr.

Nothing is compiled or executed. XLA's own estimate counts the body of a loop only once and thus
misses nearly all of a recurrence (a quarter of the default model's operations); this count
multiplies loop bodies by their number of iterations.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax


def flops(function: Callable[..., Any], *args: Any) -> Counter[str]:
    """Returns the operation count by kind: "dot", "convolution", "fft" and "elementwise".

    A multiply and an add count as two operations. Elementwise operations, reductions and
    comparisons count one per input or output value, whichever are more; data movement is free. A
    `while_loop`, whose length is unknown, counts once; a `cond` counts its most expensive branch.

    Args:
      function: pure function of arrays.
      *args: arrays or `jax.ShapeDtypeStruct`s.

    Example:
        >>> import jax.numpy as jnp
        >>> flops(jnp.dot, jnp.ones((3, 4)), jnp.ones((4, 5)))["dot"]
        120
    """
    return of_jaxpr(jax.make_jaxpr(function)(*args))


def of_jaxpr(jaxpr: Any) -> Counter[str]:
    """Returns the operation count by kind of a function that is traced already: see `flops`.

    Args:
      jaxpr: a `ClosedJaxpr`, such as `jax.jit(function).trace(*args).jaxpr`.
    """
    return _count(_open(jaxpr))


_FREE = frozenset(
    "broadcast_in_dim reshape transpose squeeze slice dynamic_slice dynamic_update_slice gather "
    "concatenate pad rev iota copy convert_element_type bitcast_convert_type stop_gradient "
    "device_put split expand_dims scatter copy_p optimization_barrier sharding_constraint reshard "
    "random_wrap random_unwrap random_seed create_token empty".split()
)


def _count(jaxpr: Any) -> Counter[str]:
    total: Counter[str] = Counter()
    for equation in jaxpr.eqns:
        total += _equation(equation)
    return total


def _equation(equation: Any) -> Counter[str]:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        depth = math.prod(shape[d] for d in contracted)
        return Counter(dot=2 * depth * _size(equation.outvars[0]))
    if name == "conv_general_dilated":
        # Each output value is a sum over the kernel's window and input channels.
        kernel = equation.invars[1].aval.shape
        outputs = kernel[params["dimension_numbers"].rhs_spec[0]]
        return Counter(
            convolution=2 * _size(equation.outvars[0]) * math.prod(kernel) // max(1, outputs)
        )
    if name == "fft":
        length = math.prod(params["fft_lengths"])
        size = max(_size(equation.invars[0]), _size(equation.outvars[0]))
        # 5 N log2 N for a complex transform (Cooley and Tukey), half of it for a real one.
        factor = 5.0 if str(params["fft_type"]).endswith("FFT") and _complex(equation) else 2.5
        return Counter(fft=int(factor * size * math.log2(max(2, length))))
    inner = [_count(_open(j)) for j in _jaxprs(params)]
    if name == "scan":
        return Counter({k: v * params["length"] for k, v in sum(inner, Counter()).items()})
    if name == "cond":
        return max(inner, key=lambda c: sum(c.values()), default=Counter())
    if inner:
        return sum(inner, Counter())
    if name in _FREE:
        return Counter()
    values = [_size(v) for v in (*equation.invars, *equation.outvars)]
    return Counter(elementwise=max(values, default=0))


def _complex(equation: Any) -> bool:
    return all(
        jax.numpy.issubdtype(v.aval.dtype, jax.numpy.complexfloating)
        for v in (equation.invars[0], equation.outvars[0])
    )


def _jaxprs(params: dict[str, Any]) -> list[Any]:
    out = []
    for key, value in params.items():
        # A custom derivative also stores its rules; only the function itself runs.
        if key in ("fwd_jaxpr_thunk", "jvp_jaxpr_fun", "bwd", "update_jaxpr"):
            continue
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if hasattr(item, "eqns") or hasattr(item, "jaxpr"):
                out.append(item)
    return out


def _open(jaxpr: Any) -> Any:
    return jaxpr.jaxpr if hasattr(jaxpr, "jaxpr") else jaxpr


def _size(variable: Any) -> int:
    return math.prod(getattr(variable.aval, "shape", ()))
