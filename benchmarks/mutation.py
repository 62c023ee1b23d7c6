"""Which changes of the code no test notices.

    python -m benchmarks.mutation [--module darkroom/evaluation/evaluate.py] [--most 20] [--seed 0]

Changes one place of one module at a time, in a copy of the checkout: a comparison turned, a
number moved by one, `and` for `or`, a condition negated, True for False, plus for minus, a
keyword's boolean. The tests that belong to the module (those that are not slow) are run on each;
a change that they all pass has survived, and is printed as `file:line: before -> after`. One
mutant takes as long as those tests: seconds to a minute. Without --module all are taken, which
takes hours; run it with `nice -n 19`, and module by module.

Survivors that were looked at and are no holes:

- cleanup.py, `token_hex(16)`: any length that AWS takes as a token will do.
- cleanup.py, `<=` for `<` of the moment of expiry: one microsecond.
"""

import argparse
import ast
import os
import random
import shutil
import sys
import tempfile
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
_SLOW_TO_IMPORT = ("numpy", "scipy.special", "scipy.stats", "PIL.Image", "pydantic", "torch")
_SLOW_TO_IMPORT += ("torchvision", "onnx", "onnxruntime", "botocore.session", "boto3", "optuna")
TESTS = {
    "darkroom/images.py": ["test_images.py", "test_images_alike.py"],
    "darkroom/models/export.py": ["test_export.py", "test_parity.py"],
    "darkroom/evaluation/metrics.py": ["test_metrics.py", "test_evaluation.py"],
    "darkroom/evaluation/intervals.py": ["test_intervals.py", "test_evaluation.py"],
    "darkroom/evaluation/evaluate.py": ["test_evaluation.py", "test_gate.py"],
    "darkroom/data/assembly.py": ["test_splitting.py"],
    "darkroom/data/image_folder.py": ["test_sources_image_folder.py"],
    "darkroom/data/archives.py": ["test_sources_archives.py"],
    "darkroom/tuning/search.py": ["test_tuning.py"],
    "darkroom/backends/sagemaker/training/job.py": ["test_sagemaker_job_requests.py"],
    "darkroom/backends/sagemaker/tuning/job.py": ["test_sagemaker_job_requests.py"],
    "darkroom/backends/sagemaker/hosting/request.py": ["test_sagemaker_hosting_requests.py"],
    "darkroom/backends/sagemaker/cleanup.py": ["test_sagemaker_clearance.py"],
    "darkroom/backends/sagemaker/hosting/resources.py": ["test_sagemaker_clearance.py"],
}
"""The tests that are to notice, by module."""

_TURNED = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


def places(source: str) -> list[int]:
    """Where something can be changed, as positions in the order of `ast.walk`."""
    return [
        place
        for place, node in enumerate(ast.walk(ast.parse(source)))
        if isinstance(node, ast.expr | ast.If) and _change(node)
    ]


def mutant(source: str, *, place: int) -> tuple[str, str]:
    """What changes at a place, in words, and the whole text with the change."""
    tree = ast.parse(source)
    node = next(each for number, each in enumerate(ast.walk(tree)) if number == place)
    if not isinstance(node, ast.expr | ast.If):
        raise ValueError(f"nothing can be changed at place {place}")
    told = node.test if isinstance(node, ast.If) else node
    before = ast.unparse(told)
    _change(node)
    told = node.test if isinstance(node, ast.If) else node
    return f"{node.lineno}: {before} -> {ast.unparse(told)}", ast.unparse(tree)


def _change(node: ast.AST) -> bool:
    """Change one node, where there is something to change."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _TURNED:
        node.ops[0] = _TURNED[type(node.ops[0])]()
    elif isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in _TURNED:
        node.op = _TURNED[type(node.op)]()
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        node.value = not node.value
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        node.value += 1
    elif isinstance(node, ast.If):
        node.test = ast.UnaryOp(ast.Not(), node.test)
    else:
        return False
    return True


def survives(module: str, text: str, *, checkout: Path, seconds: float) -> bool:
    """Whether the tests of a module pass with another text of it."""
    (checkout / module).write_text(text, encoding="utf-8")
    tests = [str(path) for name in TESTS[module] for path in Path("tests").rglob(name)]
    # A fork of this process, which has imported what takes long, and nothing of Darkroom.
    judge = get_context("fork").Process(target=_judge, args=(checkout, tests))
    judge.start()
    judge.join(seconds)
    if judge.is_alive():  # a loop that the change made endless
        judge.kill()
        judge.join()
    return judge.exitcode == 0


def _judge(checkout: Path, tests: list[str]) -> None:
    """End with 0 where all tests pass."""
    import pytest

    os.chdir(checkout)
    os.environ["HOME"] = str(checkout / "home")
    sys.dont_write_bytecode = True
    sys.path[:] = [str(checkout), *(p for p in sys.path if Path(p or ".").resolve() != CHECKOUT)]
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    code = pytest.main(["-q", "-x", "-m", "not slow", "-p", "no:cacheprovider", *tests])
    darkroom = sys.modules["darkroom"].__file__ or ""
    if checkout not in Path(darkroom).resolve().parents:
        code = 70  # another checkout was tested
    os._exit(int(code))


def main() -> None:
    """Change, test, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--module", choices=TESTS, action="append")
    parser.add_argument("--most", type=int, default=20, help="mutants of a module")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=120, help="of the tests of one mutant")
    options = parser.parse_args()
    for name in _SLOW_TO_IMPORT:
        import_module(name)
    with tempfile.TemporaryDirectory(prefix="mutation-") as scratch:
        checkout = Path(scratch, "checkout")
        ignored = shutil.ignore_patterns(".git", ".venv*", ".darkroom", "__pycache__", ".*_cache")
        shutil.copytree(CHECKOUT, checkout, ignore=ignored)
        for module in options.module or TESTS:
            source = (CHECKOUT / module).read_text(encoding="utf-8")
            if not survives(module, source, checkout=checkout, seconds=options.seconds):
                raise SystemExit(f"{module}: its tests do not pass as it is")
            found = places(source)
            chosen = random.Random(options.seed).sample(found, min(options.most, len(found)))
            left = []
            for place in sorted(chosen):
                told, text = mutant(source, place=place)
                if survives(module, text, checkout=checkout, seconds=options.seconds):
                    left.append(f"{module}:{told}")
            (checkout / module).write_text(source, encoding="utf-8")
            print(f"{module}: {len(chosen)} of {len(found)} changes tried, {len(left)} unnoticed")
            print("\n".join(left), flush=True)


if __name__ == "__main__":
    main()
