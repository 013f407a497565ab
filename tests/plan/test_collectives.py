"""The reader of compiled programs against programs whose traffic is known by construction."""

import random

import pytest

from a2fjax.plan import collectives, hlo

CODE = """
flat = mesh(d=16)
out["psum"] = text(lambda x: jax.lax.psum(x, "d"), flat, P("d"), P(), (16, 100))
out["gather"] = text(
    lambda x: jax.lax.all_gather(x, "d", tiled=True), flat, P("d"), P(), (32, 50))
out["scatter"] = text(
    lambda x: jax.lax.psum_scatter(x, "d", tiled=True), flat, P(), P("d"), (32, 50))
out["permute"] = text(
    lambda x: jax.lax.ppermute(x, "d", [(i, (i + 1) % 16) for i in range(16)]),
    flat, P("d"), P("d"), (16, 25))
out["all_to_all"] = text(
    lambda x: jax.lax.all_to_all(x, "d", 1, 0, tiled=True), flat, P("d"), P(None, "d"), (16, 32))
out["nothing"] = text(lambda x: 2 * x, flat, P("d"), P("d"), (16, 4))

def nested(x):
    def inner(c, _):
        return jnp.tanh(jax.lax.ppermute(c, "d", [(i, i ^ 1) for i in range(16)])), None
    def outer(c, _):
        c = jax.lax.scan(inner, c, None, length=5)[0]
        return jnp.sin(jax.lax.psum(c, "d")), None
    return jax.lax.scan(outer, x, None, length=7)[0]
out["nested"] = text(nested, flat, P("d"), P("d"), (16, 10))

def branches(x):
    return jax.lax.cond(x[0, 0] > 0, lambda v: jax.lax.psum(v, "d"), lambda v: v, x)
out["branches"] = text(branches, flat, P("d"), P("d"), (16, 10))

both, rows = mesh(data=2, fsdp=8), P(("data", "fsdp"))
out["inside"] = text(lambda x: jax.lax.psum(x, "fsdp"), both, rows, P("data"), (16, 9))
out["across"] = text(lambda x: jax.lax.psum(x, "data"), both, rows, P("fsdp"), (16, 9))

def product(x):
    return jax.lax.scan(lambda c, _: (jnp.tanh(c @ c), None), x, None, length=11)[0]
out["product"] = text(product, flat, P(), P(), (24, 24))
"""


@pytest.fixture(scope="module")
def texts(programs):
    return programs(CODE)


@pytest.fixture(scope="module")
def found(texts):
    return {k: collectives.count(hlo.parse(v), 16) for k, v in texts.items()}


def total(rows, key):
    return sum(row.times * getattr(row, key) for row in rows)


@pytest.mark.parametrize(
    ("name", "kind", "size", "wire"),
    [
        ("psum", "all-reduce", 400, 2 * 15 / 16 * 400),
        ("gather", "all-gather", 32 * 50 * 4, 15 / 16 * 32 * 50 * 4),
        ("scatter", None, 32 * 50 * 4, None),
        ("permute", "collective-permute", 100, 100),
        ("all_to_all", "all-to-all", 32 * 4, 15 / 16 * 32 * 4),
    ],
)
def test_each_kind_has_its_bytes(found, name, kind, size, wire):
    (row,) = found[name]
    # A CPU's reduce-scatter may be an all-reduce of which each device keeps a part.
    kinds = (kind,) if kind else ("reduce-scatter", "all-reduce")
    assert row.kind in kinds and row.bytes == size and row.dtype == "f32"
    assert row.group == (2 if row.kind == "collective-permute" else 16) and row.crosses
    if wire:
        assert row.wire == pytest.approx(wire)


def test_nested_loops_are_multiplied(found):
    rows = found["nested"]
    permuted = [row for row in rows if row.kind == "collective-permute"]
    summed = [row for row in rows if row.kind == "all-reduce"]
    assert total(permuted, "bytes") == 7 * 5 * 40
    assert total(summed, "bytes") == 7 * 40
    # Neighbours in pairs never leave a host of eight.
    assert not any(row.crosses for row in permuted) and all(row.crosses for row in summed)


def test_groups_say_whether_they_leave_a_host(found):
    (inside,), (across,) = found["inside"], found["across"]
    assert (inside.group, inside.hosts, inside.crosses) == (8, 1, False)
    assert (across.group, across.hosts, across.crosses) == (2, 2, True)
    assert inside.wire == pytest.approx(2 * 7 / 8 * 36)
    assert across.wire == pytest.approx(2 * 1 / 2 * 36)


def test_silence_and_branches(found):
    assert found["nothing"] == []
    assert total(found["branches"], "bytes") == 40


def test_products_in_loops_are_multiplied(texts):
    assert hlo.flops(hlo.parse(texts["product"])) == 11 * 2 * 24**3


@pytest.mark.parametrize("seed", range(20))
def test_any_nest_of_loops_is_their_product(seed):
    draw = random.Random(seed)
    trips = [draw.randint(1, 9) for _ in range(draw.randint(1, 4))]
    sizes = [draw.randint(1, 999) for _ in trips]
    lines, expected, times = [], 0.0, 1
    for depth, (n, size) in enumerate(zip(trips, sizes, strict=True)):
        times *= n
        expected += times * 2 * 3 / 4 * 4 * size
        lines += [
            f"%body.{depth} (p.{depth}: f32[{size}]) -> f32[{size}] {{",
            f"  %p.{depth} = f32[{size}]{{0}} parameter(0)",
            f"  %r.{depth} = f32[{size}]{{0:T(128)}} all-reduce-start(%p.{depth}), "
            "replica_groups=[2,4]<=[4,2]T(1,0), to_apply=%add",
            f"  ROOT %d.{depth} = f32[{size}]{{0}} all-reduce-done(%r.{depth})",
        ]
        if depth + 1 < len(trips):
            lines.append(_while(depth + 1, trips[depth + 1]))
        lines.append("}")
    lines += ["ENTRY %main (x: f32[1]) -> f32[1] {", _while(0, trips[0]), "}"]
    program = hlo.parse("\n".join(lines))
    rows = collectives.count(program, 8, per_host=4)
    assert sum(row.times * row.wire for row in rows) == pytest.approx(expected)
    assert {row.group for row in rows} == {4} and hlo.unknown_loops(program) == 0
    assert {row.hosts for row in rows} == {2}


def _while(depth, trips):
    return (
        f"  %w.{depth} = (f32[9], /*index=1*/s32[]) while(%t), condition=%c, body=%body.{depth}, "
        f'backend_config={{"known_trip_count":{{"n":"{trips}"}}}}'
    )


@pytest.mark.parametrize(
    ("written", "groups"),
    [
        ("replica_groups={{0,1},{2,3}}", [(0, 1), (2, 3)]),
        ("replica_groups={}", [(0, 1, 2, 3)]),
        ("replica_groups=[2,2]<=[4]", [(0, 1), (2, 3)]),
        ("replica_groups=[2,2]<=[2,2]T(1,0)", [(0, 2), (1, 3)]),
        ("replica_groups=mesh['a'=2,'b'=2] {'b'}", [(0, 1), (2, 3)]),
        ("replica_groups=mesh['a'=2,'b'=2] {'a'}", [(0, 2), (1, 3)]),
        ("replica_groups=mesh['a'=4] {'a':(2)2}", [(0, 1), (2, 3)]),
        ("replica_groups=mesh['a'=4] {'a':(1)2}", [(0, 2), (1, 3)]),
        ("replica_groups=mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'b'}", [(0, 2), (1, 3)]),
        ("replica_groups=mesh['a'=2,'b'=2], device_ids=(3,2,1,0) {'b'}", [(3, 2), (1, 0)]),
        ("source_target_pairs={{0,1},{1,0},{2,2}}", [(0, 1), (1, 0)]),
    ],
)
def test_groups_in_every_notation(written, groups):
    instruction = hlo.Instruction("x", "all-reduce", (), (), f", {written}, channel_id=1")
    assert collectives.groups_of(instruction, 4) == groups


def test_an_unknown_notation_is_not_guessed():
    instruction = hlo.Instruction("x", "all-reduce", (), (), ", replica_groups=everyone")
    with pytest.raises(ValueError, match="unknown notation"):
        collectives.groups_of(instruction, 4)


def test_asynchronous_gathers_count_what_is_gathered_once():
    text = """
%called (a: f32[6]) -> f32[3] {
  %a = f32[6]{0} parameter(0)
  ROOT %s = f32[3]{0} reduce-scatter(%a), replica_groups={{0,1}}, dimensions={0}, to_apply=%add
}
ENTRY %main (x: bf16[2,5]) -> bf16[4,5] {
  %x = bf16[2,5]{1,0} parameter(0)
  %y = f32[6]{0} parameter(1)
  %g = (bf16[2,5]{1,0}, bf16[4,5]{1,0}) all-gather-start(%x), replica_groups={{0,1}}, dimensions={0}
  %h = bf16[4,5]{1,0} all-gather-done(%g)
  %s = ((f32[6]{0}), f32[3]{0}) async-start(%y), calls=%called
  %t = f32[3]{0} async-done(%s), calls=%called
  ROOT %r = bf16[4,5]{1,0} copy(%h)
}
"""
    gather, scatter = collectives.count(hlo.parse(text), 2)
    assert (gather.kind, gather.dtype, gather.bytes, gather.wire) == ("all-gather", "bf16", 40, 20)
    assert (scatter.kind, scatter.bytes, scatter.wire, scatter.times) == (
        "reduce-scatter", 24, 12, 1,
    )  # fmt: skip
    assert hlo.launches(hlo.parse(text)) == 3
