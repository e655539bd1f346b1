"""Files of earlier versions still load: fields that were renamed since are read by their former names, too."""

from typing import Any

from conftest import make_target
from made_up import measured

from autotune.job import JOB, MeasureJob
from autotune.measurement import Measurement
from autotune.reuse import Reuse, SpotCheck

SOURCE: dict[str, Any] = {"trial": 3, "prompt": 1, "suspects": {"dtype": "bf16"}, "images": "there"}
CHECK: dict[str, Any] = {"trial": 3, "prompt": 1, "ssim": 0.9, "psnr_db": 24.0, "largest_levels": 9}
INCUMBENT = {"trial": 0, "latencies_s": [1.0], "error": 0.1, "peak_memory_bytes": 1}


def test_a_job_of_an_earlier_version_says_what_it_may_skip() -> None:
    source = {**SOURCE, "least_psnr_db": 30.0, "can_tell": False}
    old = {"giver": source, "compiler": 2, "rivals": [INCUMBENT], "spread": 0.1, "each": True}
    values = {"kind": "measure", "values": {}, "pictures": True}
    job = JOB.validate_python({**values, "target": make_target().to_json(), "thrift": old})
    assert isinstance(job, MeasureJob)
    assert job.reuse == Reuse.model_validate(
        {
            "source": {**SOURCE, "min_psnr_db": 30.0, "conclusive": False},
            "compiler": 2,
            "incumbents": [INCUMBENT],
            "spread": 0.1,
            "each": True,
        }
    )


def test_a_trial_of_an_earlier_version_keeps_its_spot_check() -> None:
    measurement = measured(1).measured
    assert measurement is not None
    data = measurement.to_json()
    del data["spot_check"]
    read = Measurement.parse({**data, "look": {**CHECK, "least_psnr_db": 30.0, "can_tell": True}}, "an old trial")
    assert read.spot_check == SpotCheck.model_validate({**CHECK, "min_psnr_db": 30.0, "conclusive": True})
    assert Measurement.parse(read.to_json(), "a new trial") == read
