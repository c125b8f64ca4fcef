"""`benchmarks/gpu.py` on a CPU: every figure is there, although none means anything."""

import json
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def test_the_benchmark_of_a_gpu_runs_on_a_cpu(tmp_path: Path) -> None:
    words = (
        "--device cpu --model vit_tiny_patch16_224 --image-size 32 --batches 2 --rounds 1 --output gpu.json"
    )
    settings = {"TORCH_COMPILE_DISABLE": "1", "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(REPOSITORY / "benchmarks/gpu.py"), *words.split()]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    (finetuning,), (inference,), (pretraining,) = (
        found[name] for name in ("finetuning", "inference", "pretraining")
    )
    ratios = [finetuning[form]["attached_over_plain"] for form in ("eager", "compiled")]
    assert min(*ratios, inference["merged_over_plain"], pretraining["share"]) > 0
    assert finetuning["peak_mebibytes"] == {"plain": None, "attached": None}
    assert found["resume"]["equal"] is True
    assert len(found["agm_over_joint"]) == 3 and min(found["agm_over_joint"].values()) > 0
