"""Train for an epoch and evaluate once; print the peak of its own memory and the size of the images in bytes.

python memory_program.py FILE.parquet auto|encoded
"""

import re
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

peak = 0


def watch() -> None:
    """Follow what the kernel counts as private to this process: pages of mapped files are not."""
    global peak
    while True:
        found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
        assert found is not None
        peak = max(peak, 1024 * int(found[1]))
        time.sleep(0.005)


def main(source: str, stored: str) -> None:
    """Run it."""
    import torch

    from ltsd.config import Config
    from ltsd.data import load_splits
    from ltsd.data.streaming import Streamed
    from ltsd.runs import open_run
    from ltsd.tasks import TASKS

    torch.set_num_threads(1)
    # What the network keeps of a batch is no matter of the data.
    TASKS["classification"] = replace(TASKS["classification"], chunk=16)
    limit = {"data.decoded_gib": 0.0} if stored == "encoded" else {}
    config = Config.preset(source).override(
        {
            "data.source": source,
            "data.image_size": 128,
            "data.resident_gib": 0.0,
            "method": "natural",
            "model.name": "small-cnn",
            "model.width": 8,
            "epochs": 1,
            "optim.batch_size": 8,
        }
        | limit
    )
    splits = load_splits(config.data, check=True)
    device = torch.device("cpu")
    run = open_run(config, splits, splits.complete, None, device, teacher=None, resume=None)
    list(run.epochs())
    test = splits.test.to(device)
    model = run.state.model.eval()
    with torch.no_grad():
        right = sum(int((model(inputs).argmax(1) == labels).sum()) for inputs, labels in test.chunks(16))
    assert 0 <= right <= len(test)
    assert isinstance(run.data.images, Streamed)
    assert isinstance(test.images, Streamed)
    print(peak, run.data.nbytes + test.nbytes)


if __name__ == "__main__":
    threading.Thread(target=watch, daemon=True).start()
    main(*sys.argv[1:])
