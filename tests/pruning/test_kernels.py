"""The fused kernels without a GPU: run by Triton's interpreter, and compiled ahead of time; on a GPU, run there."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

triton = pytest.importorskip("triton")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from secateur.pruning.capture import kernels, launches  # noqa: E402

GROUPS = {
    "families": ("fold_cases.py", "every_family"),
    "fold": ("fold_cases.py", "not every_family"),
    "activations": ("sums_cases.py", "not a_pass_through"),
    "pass": ("sums_cases.py", "a_pass_through"),
}


def run_cases(group: str, root: Path, **environment: str) -> None:
    name, words = GROUPS[group]
    file = str(Path(__file__).with_name(name))
    command = [sys.executable, "-m", "pytest", file, "-q", "-x", "-k", words, "-p", "no:cacheprovider"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=root,
        env=os.environ | environment,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert re.search(r"\b\d+ passed", done.stdout), done.stdout[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_the_kernels_in_the_interpreter(group: str, root: Path) -> None:
    run_cases(group, root, TRITON_INTERPRET="1", PYTHONPATH=str(root))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("group", GROUPS)
def test_the_kernels_on_the_gpu(group: str, root: Path) -> None:
    run_cases(group, root, PYTHONPATH=str(root))


def compiled(
    kernel: Any,
    capability: int,
    signature: dict[str, str],
    constants: dict[str, Any],
    options: dict[str, Any],
) -> Any:
    """Compile for a GPU that is not here; pointers and sizes are multiples of 16, as those of real models are."""
    names = kernel.arg_names
    odd = ("factor", "parts", "starts", "rows")
    aligned = {(names.index(name),): [["tt.divisibility", 16]] for name in signature if name not in odd}
    source = ASTSource(
        fn=kernel,
        signature=signature | dict.fromkeys(constants, "constexpr"),
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs=aligned,
    )
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def resources(binary: bytes, folder: Path) -> dict[str, int]:
    """What a compiled kernel takes per thread: registers, bytes of stack and of local memory (both: spills)."""
    path = folder / "kernel.cubin"
    path.write_bytes(binary)
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    told = subprocess.run([tool, "-res-usage", path], capture_output=True, text=True, check=True).stdout
    return {name: int(value) for name, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", told)}


def widths(ptx: str, instruction: str) -> set[int]:
    """Bytes that a thread moves at once to or from global memory, over all such instructions."""
    found = re.findall(rf"\b{instruction}\.global(?:\.L\w+|\.\w*evict\w*)*(?:\.v(\d))?\.[bfsu](\d+)", ptx)
    return {int(many or 1) * int(bits) // 8 for many, bits in found}


def is_lean(result: Any, folder: Path, registers: int) -> None:
    taken = resources(result.asm["cubin"], folder)
    assert taken["REG"] <= registers
    assert (taken["STACK"], taken["LOCAL"]) == (0, 0)


NAMES = {torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.float32: "*fp32"}


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", list(NAMES))
@pytest.mark.parametrize(
    ("tile", "squares"), [(launches.FLAT, False), *((tile, True) for tile in launches.TILES)]
)
def test_the_fold_moves_16_bytes_at_once_and_spills_nothing(
    capability: int, dtype: torch.dtype, tile: launches.Tile, squares: bool, tmp_path: Path
) -> None:
    kind = NAMES[dtype]
    signature = {
        "gradient": kind, "weight": kind, "accumulator": "*fp32", "moments": "*fp64", "squares": "*fp32",
        "rows": "i32", "columns": "i32", "factor": "fp32",
    }  # fmt: skip
    constants = {
        "AXIS": tile.axis, "SQUARES": squares, "ACCUMULATE": True,
        "ROWS": tile.rows, "COLUMNS": tile.columns, "STEPS": tile.steps,
    }  # fmt: skip
    result = compiled(kernels.fold_kernel, capability, signature, constants, tile.options)
    assert widths(result.asm["ptx"], "ld") == {16}
    assert 16 in widths(result.asm["ptx"], "st")
    assert result.asm["ptx"].count("atom") == 0
    assert "fma.rn.f32" not in result.asm["ptx"]
    is_lean(result, tmp_path, registers=80)  # three programs of 256 threads on a multiprocessor


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("kernel", ["sums_kernel", "products_kernel"])
def test_the_sums_of_activations_move_16_bytes_at_once_and_spill_nothing(
    capability: int, kernel: str, tmp_path: Path
) -> None:
    first = {"activation": "*bf16"}
    rest = {"sums": "*fp32", "tokens": "i32", "features": "i32", "parts": "i32"}
    constants: dict[str, Any] = {
        "ROWS": launches.TOKENS, "COLUMNS": launches.FEATURES, "STEPS": launches.TOKEN_STEPS
    }  # fmt: skip
    if kernel == "sums_kernel":
        signature = first | {"text": "*i1"} | rest
        constants = {"MASKED": False} | constants
    else:
        signature = first | {"slope": "*bf16"} | rest | {"factor": "fp32"}
    result = compiled(getattr(kernels, kernel), capability, signature, constants, launches.OPTIONS)
    assert widths(result.asm["ptx"], "ld") == {16}
    is_lean(result, tmp_path, registers=96)  # five programs of 128 threads


ONES = [(), ("rows",), ("columns",), ("rows", "columns")]


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("ones", ONES)
def test_the_fold_compiles_for_sizes_that_are_1(axis: int, ones: tuple[str, ...]) -> None:
    """Triton compiles a size that is 1 into the kernel; the interpreter does not, and would not find out."""
    tile = launches.TILES[axis]
    sizes = {name: "i32" for name in ("rows", "columns") if name not in ones}
    signature = {
        "gradient": "*bf16", "weight": "*bf16", "accumulator": "*fp32", "moments": "*fp64", "squares": "*fp32",
        **sizes, "factor": "fp32",
    }  # fmt: skip
    constants = {
        "AXIS": axis, "SQUARES": True, "ACCUMULATE": True, "ROWS": tile.rows, "COLUMNS": tile.columns,
        "STEPS": tile.steps, **dict.fromkeys(ones, 1),
    }  # fmt: skip
    assert "st.global" in compiled(kernels.fold_kernel, 90, signature, constants, tile.options).asm["ptx"]


@pytest.mark.parametrize("kernel", ["sums_kernel", "products_kernel"])
@pytest.mark.parametrize("one", ["tokens", "features", "parts"])
@pytest.mark.parametrize("masked", [False, True])
def test_the_sums_compile_for_sizes_that_are_1(kernel: str, one: str, masked: bool) -> None:
    function = getattr(kernels, kernel)
    kinds = {
        "activation": "*fp16", "text": "*i1", "slope": "*fp16", "sums": "*fp32", "tokens": "i32", "features": "i32",
        "parts": "i32", "factor": "fp32",
    }  # fmt: skip
    values = {
        "MASKED": masked, "ROWS": launches.TOKENS, "COLUMNS": launches.FEATURES, "STEPS": launches.TOKEN_STEPS,
        one: 1,
    }  # fmt: skip
    names = function.arg_names
    signature = {name: kind for name, kind in kinds.items() if name in names and name != one}
    constants = {name: value for name, value in values.items() if name in names}
    assert "st.global" in compiled(function, 90, signature, constants, launches.OPTIONS).asm["ptx"]


def test_the_moments_compile() -> None:
    signature = {"parts": "*fp64", "starts": "*i64", "moments": "*fp64"}
    constants = {"BLOCK": launches.BLOCK}
    assert (
        "st.global" in compiled(kernels.moments_kernel, 90, signature, constants, launches.OPTIONS).asm["ptx"]
    )
