"""cp.async, mbarriers, TMA and the matrix instructions: results against NumPy, and planted bugs reported by name."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from cnnengine.errors import KernelError
from cnnengine.jit.host import compiler

from .conftest import NO_COMPILER, Choose
from .machine import Machine, array, line_of
from .test_bugs import RACE, is_named

FILE = "asynchronous.cuh"
CLANG = "clang" in "".join(compiler()) if NO_COMPILER is None else False
TILES = 2 * 128 * 4  # bytes of the struct Copied
RING = 4 * 64 * 64 * 2 + 1024  # of Ring
BOX = 17 * 1024  # of Box
OPERANDS = (64 + 256) * 128  # of Operands
ELEMENTS = {"__half": np.float16, "__nv_bfloat16": ml_dtypes.bfloat16, "ptx::tf32": np.float32}


def copied(chosen: Machine, bug: int, n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    x, y = array(np.arange(n), np.float32), array(np.zeros(n), np.float32)
    chosen.launch(f"copied<{bug}>", 1, 32, x, y, np.int32(n), shared=TILES)
    padded = np.zeros(-(-n // 128) * 128, np.float32)
    padded[:n] = x
    tiles = padded.reshape(-1, 128)
    return y, (tiles + tiles[:, ::-1]).reshape(-1)[:n]


def test_copies(emulate: Choose) -> None:
    ours, theirs = copied(emulate(FILE), 0)
    np.testing.assert_array_equal(ours, theirs)


def test_small_copies(emulate: Choose) -> None:
    x, y = array(np.arange(1, 97), np.float32), array(np.full(96, -1), np.float32)
    emulate(FILE).launch("copied_small", 1, 32, x, y, shared=TILES)
    keep = np.concatenate((np.arange(32) % 2 == 0, np.arange(64) // 2 % 2 == 0))
    np.testing.assert_array_equal(y, np.where(keep, x, 0))


def test_matrices(emulate: Choose) -> None:
    """Lane l holds elements (l/4, l%4*2) and the next; with trans (l%4*2, l/4) and the one below."""
    x, y = array(np.arange(4 * 64), np.uint16).reshape(4, 8, 8), array(np.zeros((14, 32)), np.uint32)
    emulate(FILE).launch("matrices", 1, 32, x, y, shared=512)
    plain = np.ascontiguousarray(x).view(np.uint32).reshape(4, 32)
    turned = np.ascontiguousarray(x.transpose(0, 2, 1)).view(np.uint32).reshape(4, 32)
    np.testing.assert_array_equal(y, np.concatenate((plain[:1], plain[:2], plain, turned[:1], turned[:2], turned)))


def test_matrices_back(emulate: Choose) -> None:
    """stmatrix puts where ldmatrix takes: the registers of matrices, and of their transposes, give them back."""
    tiles = np.arange(4 * 64, dtype=np.uint16).reshape(4, 8, 8)
    x, y = array(tiles.view(np.uint32).reshape(4, 32)), array(np.zeros((14, 8, 8)), np.uint16)
    emulate(FILE).launch("matrices_back", 1, 32, x, y, shared=112 * 16)
    each = np.concatenate((tiles[:1], tiles[:2], tiles))
    np.testing.assert_array_equal(y, np.concatenate((each, each.transpose(0, 2, 1))))


def test_fragments_stored_by_two_warps(emulate: Choose) -> None:
    y = array(np.zeros((2, 32, 4)), np.uint32)
    emulate(FILE).launch("stored_fragments<0>", 1, 64, y, shared=1024)
    rows = (np.arange(4)[:, None] * 100 + np.arange(32)).reshape(32, 4)
    np.testing.assert_array_equal(y, np.stack((rows, rows)))


def stored_fragments(chosen: Machine, bug: int) -> str:
    return chosen.report(f"stored_fragments<{bug}>", 1, 64, array(np.zeros((2, 32, 4)), np.uint32), shared=1024)


def test_missing_barrier_after_stmatrix(checked: Choose) -> None:
    report = stored_fragments(checked(FILE), 1)
    is_named(report, RACE, "stmatrix", "stmatrix-read", file=FILE)
    assert line_of(FILE, "stmatrix") in report


def test_misaligned_stmatrix(emulate: Choose) -> None:
    report = stored_fragments(emulate(FILE), 2)
    is_named(report, "misaligned access", "stmatrix", file=FILE)
    assert "stmatrix of a row at shared offset" in report


def test_stmatrix_in_an_incomplete_warp(emulate: Choose) -> None:
    report = stored_fragments(emulate(FILE), 3)
    assert "stmatrix" in report
    assert line_of(FILE, "stmatrix") in report


def test_missing_copy_wait(checked: Choose) -> None:
    with pytest.raises(KernelError) as raised:
        copied(checked(FILE), 1)
    is_named(str(raised.value), "missing cp.async wait", "copy-read", file=FILE)


def test_missing_copy_wait_without_the_checker(plain: Choose) -> None:
    with pytest.raises(KernelError, match=r"missing cp\.async wait .* that it never waited for"):
        copied(plain(FILE), 1)


def test_missing_barrier_after_the_copy_wait(checked: Choose) -> None:
    with pytest.raises(KernelError) as raised:
        copied(checked(FILE), 2)
    is_named(str(raised.value), RACE, "copy-read", "copy-misaligned", file=FILE)


def test_misaligned_copy(emulate: Choose) -> None:
    with pytest.raises(KernelError) as raised:
        copied(emulate(FILE), 3)
    is_named(str(raised.value), "misaligned access", "copy-misaligned", file=FILE)


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("element", ["__half", "__nv_bfloat16"])
def test_warp_product(emulate: Choose, rng: np.random.Generator, element: str, transposed: int) -> None:
    dtype = ELEMENTS[element]
    a, b = rng.standard_normal((16, 16)).astype(dtype), rng.standard_normal((16, 8)).astype(dtype)
    d = array(np.zeros((16, 8)), np.float32)
    kernel = f"multiplied<{element}, {transposed}>"
    emulate(FILE).launch(kernel, 1, 32, array(a.view(np.uint16)), array(b.view(np.uint16)), d, shared=512 + 512)
    np.testing.assert_allclose(d, 1 + a.astype(np.float64) @ b.astype(np.float64), rtol=1e-5, atol=1e-5)


def to_tf32(x: np.ndarray) -> np.ndarray:
    return ((x.view(np.uint32) + 0x1000) & 0xFFFFE000).view(np.float32)


@pytest.mark.parametrize("element", ["__half", "__nv_bfloat16"])
def test_warp_products_of_8(emulate: Choose, rng: np.random.Generator, element: str) -> None:
    dtype = ELEMENTS[element]
    a, b = rng.standard_normal((16, 8)).astype(dtype), rng.standard_normal((8, 8)).astype(dtype)
    x, w = rng.standard_normal((16, 8)).astype(np.float32), rng.standard_normal((8, 8)).astype(np.float32)
    d, e = array(np.zeros((16, 8)), np.float32), array(np.zeros((16, 8)), np.float32)
    bits = [array(v.view(np.uint16)) for v in (a, b)]
    kernel = f"multiplied_k8<{int(element == '__nv_bfloat16')}>"
    emulate(FILE).launch(kernel, 1, 32, *bits, array(x), array(w), d, e)
    np.testing.assert_allclose(d, a.astype(np.float64) @ b.astype(np.float64), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(e, to_tf32(x).astype(np.float64) @ to_tf32(w), rtol=1e-5, atol=1e-5)


def swizzled(tile: np.ndarray, span: int) -> np.ndarray:
    """Rows of bytes (rows, span or fewer) as they lie in shared memory: in row r of eight, 16-byte chunk c is at
    c ^ r for a span of 128, and correspondingly for rows that share 128 bytes."""
    flat = tile.reshape(-1)
    at = np.arange(flat.size)
    chunks = span // 16 - 1 if span else 0
    result = np.zeros_like(flat)
    result[at ^ ((at >> 7 & chunks) << 4)] = flat
    return result


BOXES = [
    ((9, 40), (4, 16), (2, 8), "float32"),  # inside
    ((9, 40), (5, 16), (-2, 32), "float32"),  # out on two sides
    ((5, 6, 64), (2, 3, 64), (4, -1, 0), "uint8"),
    ((3, 7, 9, 8), (1, 4, 5, 8), (2, -1, 6, 0), "uint16"),
    ((2, 3, 5, 4, 16), (1, 2, 3, 2, 16), (1, 2, 3, -1, 8), "uint16"),
]


@pytest.mark.parametrize(("shape", "box", "corner", "dtype"), BOXES)
def test_tensor_loads(
    emulate: Choose, shape: tuple[int, ...], box: tuple[int, ...], corner: tuple[int, ...], dtype: str
) -> None:
    tensor = array(np.arange(1, np.prod(shape) + 1).reshape(shape), dtype)
    expected = np.zeros(box, dtype)
    for index in np.ndindex(*box):
        at = tuple(c + i for c, i in zip(corner, index, strict=True))
        if all(0 <= a < n for a, n in zip(at, shape, strict=True)):
            expected[index] = tensor[at]
    chosen = emulate(FILE)
    y = array(np.zeros(expected.nbytes), np.uint8)
    coordinates = [np.int32(c) for c in (*corner[::-1], *(0,) * (5 - len(corner)))]
    held = chosen.tensor_map(tensor, box)
    chosen.launch(
        f"boxed<{len(shape)}>", 1, 32, held, y, np.int32(expected.nbytes), *coordinates, shared=BOX, also=(tensor,)
    )
    np.testing.assert_array_equal(y.view(dtype).reshape(box), expected)


@pytest.mark.parametrize("span", [32, 64, 128])
def test_swizzled_loads(emulate: Choose, span: int) -> None:
    tensor = array(np.arange(32 * 256) % 251, np.uint8).reshape(32, 256)
    y = array(np.zeros(16 * span), np.uint8)
    chosen = emulate(FILE)
    held = chosen.tensor_map(tensor, (16, span), swizzle=(32, 64, 128).index(span) + 1)
    zeros = [np.int32(0)] * 3
    chosen.launch(
        "boxed<2>", 1, 32, held, y, np.int32(y.nbytes), np.int32(64), np.int32(5), *zeros, shared=BOX, also=(tensor,)
    )
    np.testing.assert_array_equal(y, swizzled(tensor[5:21, 64 : 64 + span], span))


def test_strided_boxes(plain: Choose) -> None:
    tensor = array(np.arange(20 * 32), np.uint8).reshape(20, 32)
    y = array(np.zeros(4 * 16), np.uint8)
    chosen = plain(FILE)
    held = chosen.tensor_map(tensor, (8, 16), steps=(2, 1))  # every second row of eight
    numbers = [np.int32(v) for v in (y.nbytes, 16, 3, 0, 0, 0)]
    chosen.launch("boxed<2>", 1, 32, held, y, *numbers, shared=BOX, also=(tensor,))
    np.testing.assert_array_equal(y.reshape(4, 16), tensor[3:11:2, 16:32])


def test_box_at_a_misaligned_coordinate(emulate: Choose) -> None:
    tensor = array(np.zeros((8, 64)), np.float32)
    chosen = emulate(FILE)
    y = array(np.zeros(64), np.uint8)
    numbers = [np.int32(v) for v in (64, 2, 0, 0, 0, 0)]
    report = chosen.report("boxed<2>", 1, 32, chosen.tensor_map(tensor, (2, 8)), y, *numbers, shared=BOX)
    assert "misaligned access" in report
    assert "a bulk tensor load at innermost coordinate 2, of 4 bytes each: a multiple of 16 bytes is expected" in report


@pytest.mark.parametrize("span", [32, 64, 128])
@pytest.mark.parametrize("element", ["float", "__half", "__nv_bfloat16"])
def test_swizzled_stores(emulate: Choose, element: str, span: int) -> None:
    dtype = np.dtype({"float": np.float32, **ELEMENTS}[element])
    columns, at = span // dtype.itemsize, 16 // dtype.itemsize
    tensor = array(np.full((20, columns + 24), -1), dtype)
    tile = np.arange(16 * columns).reshape(16, columns).astype(dtype)
    expected = tensor.copy()
    expected[9:20, at : at + columns] = tile[:11]
    chosen = emulate(FILE)
    held = chosen.tensor_map(tensor, (16, columns), swizzle=(32, 64, 128).index(span) + 1)
    x = array(swizzled(tile.view(np.uint8), span))
    numbers = [np.int32(v) for v in (tile.size, at, 9)]
    chosen.launch(f"stored_swizzled<{element}>", 1, 32, held, x, *numbers, shared=BOX, also=(tensor,))
    np.testing.assert_array_equal(tensor, expected)


def stored(chosen: Machine, bug: int) -> np.ndarray:
    tensor = array(np.full((10, 40), -1), np.float32)
    chosen.launch(
        f"stored<{bug}>",
        1,
        32,
        chosen.tensor_map(tensor, (8, 32)),
        np.int32(20),
        np.int32(-3),
        shared=BOX,
        also=(tensor,),
    )
    return tensor


@pytest.mark.parametrize("read_first", [0, 4])
def test_tensor_stores(emulate: Choose, read_first: int) -> None:
    expected = np.full((10, 40), -1, np.float32)
    tile = np.arange(8)[:, None] * 100 + np.arange(32)
    expected[0:5, 20:40] = tile[3:8, :20]
    np.testing.assert_array_equal(stored(emulate(FILE), read_first), expected)


def test_store_without_proxy_fence(checked: Choose) -> None:
    with pytest.raises(KernelError) as raised:
        stored(checked(FILE), 1)
    is_named(str(raised.value), "missing fence.proxy.async", "store", file=FILE)


def test_store_that_nobody_waits_for(emulate: Choose) -> None:
    with pytest.raises(KernelError) as raised:
        stored(emulate(FILE), 3)
    is_named(str(raised.value), "missing wait for a bulk tensor copy", "store", file=FILE)


def test_tile_overwritten_while_stored(plain: Choose, checked: Choose) -> None:
    """The copy engine reads as late as it may: the tensor gets the value that came too early."""
    assert stored(plain(FILE), 2)[0, 20] == 300
    with pytest.raises(KernelError) as raised:
        stored(checked(FILE), 2)
    is_named(str(raised.value), "missing wait for a bulk tensor copy", "overwritten", file=FILE)


def ring(chosen: Machine, bug: int, steps: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    a, b = (array(rng.standard_normal((64, 64 * steps)), np.float16) for _ in range(2))
    y = array(np.zeros((64, 64)), np.float32)
    maps = [chosen.tensor_map(v, (64, 64), swizzle=3) for v in (a, b)]
    chosen.launch(f"ring<{bug}>", 1, 160, *maps, y, np.int32(steps), shared=RING, also=(a, b))
    return y, a.astype(np.float64) @ b.astype(np.float64).T


def test_ring(emulate: Choose) -> None:
    ours, theirs = ring(emulate(FILE), 0)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def ring_report(chosen: Machine, bug: int) -> str:
    with pytest.raises(KernelError) as raised:
        ring(chosen, bug)
    return str(raised.value)


def test_missing_empty_wait(emulate: Choose) -> None:
    """The producer opens the next phase of a stage whose bytes are still under way."""
    report = ring_report(emulate(FILE), 1)
    is_named(report, "mbarrier misuse", "full-arrive", file=FILE)
    assert "one arrival too many: the phase takes 1 and still waits for 16384 bytes" in report


def test_too_many_bytes_expected(emulate: Choose) -> None:
    report = ring_report(emulate(FILE), 2)
    assert "deadlock" in report
    assert "threads 0-127: waiting for parity 0 of an mbarrier" in report
    assert "0 of 1 arrivals and 16 bytes missing" in report
    assert line_of(FILE, "full-wait") in report


def test_wrong_parity(checked: Choose) -> None:
    """A wait that does not wait: the consumers run ahead of the copies, or the copies into what they read."""
    report = ring_report(checked(FILE), 3)
    kinds = ("missing wait for a bulk tensor copy", "missing wgmma wait", RACE)
    assert report.startswith(tuple(f"ring<3>: {kind} at " for kind in kinds)), report
    assert line_of(FILE, "load-a") in report
    assert line_of(FILE, "wgmma") in report


def test_more_arrivals_than_counted(emulate: Choose) -> None:
    """128 arrivals on a barrier of 64 end two phases, where the producer waits for one."""
    report = ring_report(emulate(FILE), 4)
    is_named(report, "deadlock", "full-wait", file=FILE)
    assert "64 of 64 arrivals and 0 bytes missing" in report


def test_missing_wgmma_fence(checked: Choose) -> None:
    is_named(ring_report(checked(FILE), 5), "missing wgmma.fence", "wgmma", file=FILE)


def test_accumulator_written_before_the_fence(checked: Choose) -> None:
    """Each thread adds 1 to its first sum, d(warp*16 + lane/4, lane%4*2), after the wait: allowed, and not reported."""
    steps = 5
    ours, theirs = ring(checked(FILE), 10, steps)
    rows, columns = np.meshgrid(np.arange(64), np.arange(64), indexing="ij")
    theirs[(rows % 16 < 8) & (columns < 8) & (columns % 2 == 0)] += steps
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_accumulator_written_after_the_fence(checked: Choose) -> None:
    report = ring_report(checked(FILE), 11)
    is_named(report, "missing wgmma.fence", "wgmma", file=FILE)
    assert "accumulator 0 was written after the last wgmma.fence" in report


def test_descriptors_that_differ(emulate: Choose) -> None:
    report = ring_report(emulate(FILE), 6)
    assert "wgmma misuse" in report
    assert "descriptors of" in report
    assert line_of(FILE, "wgmma") in report


def test_descriptor_past_shared_memory(emulate: Choose) -> None:
    report = ring_report(emulate(FILE), 7)
    is_named(report, "out of bounds", "wgmma", file=FILE)
    assert "past the end of shared memory" in report


@pytest.mark.skipif(CLANG, reason="Clang does not instrument a local array element that is not passed on itself")
def test_accumulator_in_flight(checked: Choose) -> None:
    is_named(ring_report(checked(FILE), 8), "missing wgmma wait", "accumulator-in-flight", file=FILE)


def test_missing_wgmma_wait(emulate: Choose) -> None:
    report = ring_report(emulate(FILE), 9)
    is_named(report, "missing wgmma wait", "load-a", "wgmma", file=FILE)


def k_major(rows: np.ndarray, span: int) -> tuple[np.ndarray, int, int]:
    """(bytes in shared memory, leading, stride) of a tile (rows, 32 bytes along k)."""
    data = rows.view(np.uint8).reshape(len(rows), -1)
    n = len(rows)
    if span == 0:  # core matrices of 8 rows x 16 bytes: along k first, then along the rows
        tile = data.reshape(n // 8, 8, 2, 16).transpose(0, 2, 1, 3).reshape(-1)
        return tile, 128, 256
    wide = np.zeros((n, span), np.uint8)
    wide[:, :32] = data
    return swizzled(wide, span), 16, 8 * span


def mn_major(rows: np.ndarray, span: int) -> tuple[np.ndarray, int, int]:
    """(bytes in shared memory, leading, stride) of a tile (rows, 16 elements of 16 bits along k), the rows' axis
    contiguous. Blocks are 8 k x `width` bytes of rows; the two along k lie side by side."""
    n, width = len(rows), span or 16
    data = np.ascontiguousarray(rows.T).view(np.uint8).reshape(2, 8, 2 * n // width, width)
    tile = np.ascontiguousarray(data.transpose(2, 0, 1, 3))  # (blocks of rows, blocks of k, 8, width)
    along_rows, along_k = 16 * width, 8 * width
    return swizzled(tile, span), along_rows if span else along_k, along_k if span else along_rows


def warpgroup(
    chosen: Machine, kernel: str, n: int, tiles: tuple[np.ndarray, ...], numbers: tuple[int, ...]
) -> np.ndarray:
    a, b = (array(np.resize(t, size)) for t, size in zip(tiles, (64 * 128, 256 * 128), strict=True))
    a[len(tiles[0]) :] = b[len(tiles[1]) :] = 0
    y = array(np.zeros((64, n)), np.float32)
    chosen.launch(kernel, 1, 128, a, b, y, *(np.int32(v) for v in numbers), shared=OPERANDS)
    return y


SPANS = {0: 0, 128: 1, 64: 2, 32: 3}
SHAPES = [("__half", 16), ("__half", 96), ("__half", 256), ("__nv_bfloat16", 64), ("ptx::tf32", 64)]


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize(("element", "n"), SHAPES)
def test_warpgroup_product(plain: Choose, rng: np.random.Generator, element: str, n: int, span: int) -> None:
    dtype = np.dtype(ELEMENTS[element])
    k = 32 // dtype.itemsize
    a, b = (rng.standard_normal((rows, k)).astype(dtype) for rows in (64, n))
    if element == "ptx::tf32":
        a, b = to_tf32(a), to_tf32(b)
    (tile_a, leading, stride), (tile_b, _, _) = k_major(a, span), k_major(b, span)
    product = a.astype(np.float64) @ b.astype(np.float64).T
    for accumulate in (0, 1):
        numbers = (leading, stride, SPANS[span], accumulate)
        ours = warpgroup(plain(FILE), f"warpgroup_product<{element}, {n}, 0, 0>", n, (tile_a, tile_b), numbers)
        np.testing.assert_allclose(ours, product + accumulate, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize(("element", "n"), [("__half", 64), ("__half", 128), ("__half", 256), ("__nv_bfloat16", 256)])
def test_warpgroup_product_of_mn_major_operands(
    plain: Choose, rng: np.random.Generator, element: str, n: int, span: int
) -> None:
    a, b = (rng.standard_normal((rows, 16)).astype(ELEMENTS[element]) for rows in (64, n))
    (tile_a, leading, stride), (tile_b, _, _) = mn_major(a, span), mn_major(b, span)
    kernel = f"warpgroup_product<{element}, {n}, 0, 1>"
    ours = warpgroup(plain(FILE), kernel, n, (tile_a, tile_b), (leading, stride, SPANS[span], 0))
    np.testing.assert_allclose(ours, a.astype(np.float64) @ b.astype(np.float64).T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n", [64, 128, 256])
@pytest.mark.parametrize("element", ["__half", "__nv_bfloat16"])
def test_weight_gradient(emulate: Choose, rng: np.random.Generator, element: str, n: int) -> None:
    """Tiles wider than a swizzle's 64 elements, and a last tile of pixels that the tensor fills in part."""
    pixels = 150
    dy, x = (array(rng.standard_normal((pixels, c)), ELEMENTS[element]) for c in (128, n))
    dw = array(np.zeros((128, n)), np.float32)
    chosen = emulate(FILE)
    maps = [chosen.tensor_map(v, (64, 64), swizzle=3) for v in (dy, x)]
    shared = (2 + n // 64) * 64 * 128 + 1024
    kernel = f"weight_gradient<{element}, {n}>"
    chosen.launch(kernel, 1, 256, *maps, dw, np.int32(pixels), shared=shared, also=(dy, x))
    np.testing.assert_allclose(dw, dy.astype(np.float64).T @ x.astype(np.float64), rtol=1e-4, atol=1e-4)


def test_wgmma_without_proxy_fence(checked: Choose) -> None:
    tile = np.zeros(16, np.uint8)
    with pytest.raises(KernelError) as raised:
        warpgroup(checked(FILE), "warpgroup_product<__half, 64, 1, 0>", 64, (tile, tile), (16, 1024, 1, 0))
    report = str(raised.value)
    is_named(report, "missing fence.proxy.async", "product", file=FILE)
    assert line_of(FILE, "operand-a") in report


def test_wgmma_after_a_proxy_fence_is_not_reported(checked: Choose) -> None:
    tile = np.zeros(16, np.uint8)
    warpgroup(checked(FILE), "warpgroup_product<__half, 16, 0, 0>", 16, (tile, tile), (16, 1024, 1, 0))


def arrivals(chosen: Machine, bug: int) -> np.ndarray:
    y = array(np.zeros(32), np.float32)
    chosen.launch(f"arrivals<{bug}>", 1, 32, y, shared=16)
    return y


def test_arrivals(emulate: Choose) -> None:
    np.testing.assert_array_equal(arrivals(emulate(FILE), 0), 3)


@pytest.mark.parametrize(
    ("bug", "kind", "mark", "detail"),
    [
        (1, "mbarrier misuse", "arrive", "that was not initialised"),
        (2, "deadlock", "wait", "1 of 33 arrivals and 0 bytes missing"),
        (4, "deadlock", "wait", "threads 0-2, 4-31: returned"),
        (3, "mbarrier misuse", "one-too-many", "one arrival too many: the phase takes 32 and still waits for 64 bytes"),
    ],
)
def test_mbarrier_misuse(emulate: Choose, bug: int, kind: str, mark: str, detail: str) -> None:
    with pytest.raises(KernelError) as raised:
        arrivals(emulate(FILE), bug)
    is_named(str(raised.value), kind, mark, file=FILE)
    assert detail in str(raised.value)


def test_tensor_maps_are_checked(plain: Choose) -> None:
    chosen = plain(FILE)
    tensor = array(np.zeros((8, 64)), np.float32)
    for box, swizzle, view, message in (
        ((8, 300), 0, tensor, "box dimension 0 of 300: 1 to 256"),
        ((8, 3), 0, tensor, "an inner box dimension of 12 bytes: a multiple of 16"),
        ((8, 64), 3, tensor, "an inner box dimension of 256 bytes: at most the swizzle's 128"),
        ((8, 4), 0, tensor[:, 1:], "base address"),
        ((8, 4), 0, tensor.reshape(-1)[:507].reshape(39, 13), "stride 1 of 52 bytes: a multiple of 16"),
    ):
        with pytest.raises(KernelError, match="bad tensor map: " + message.replace("(", r"\(")):
            chosen.tensor_map(view, box, swizzle)
    y = array(np.zeros(64), np.uint8)
    numbers = [np.int32(v) for v in (64, 0, 0, 0, 0, 0)]
    assert "that nobody encoded" in chosen.report("boxed<2>", 1, 32, bytes(128), y, *numbers, shared=BOX)
    flat = chosen.tensor_map(tensor, (2, 8))
    report = chosen.report("boxed<3>", 1, 32, flat, y, *numbers, shared=BOX)
    assert "of 3 dimensions through a map of 2" in report


def test_layouts_that_the_emulator_lacks(plain: Choose) -> None:
    tensor = array(np.zeros((8, 64)), np.float32)
    options = {"interleave": 1, "swizzle": 0, "promotion": 0, "fill": 0}
    encode = plain(FILE).module.encode_tensor_map_tiled
    with pytest.raises(KernelError, match="tensor maps with interleave 0 and fill 0, not 1 and 0"):
        encode(7, tensor.ctypes.data, (64, 8), (256,), (8, 8), (1, 1), **options)
