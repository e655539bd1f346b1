"""columns: the page of the columns of `autotune table` and of recorded tables; a test holds their names to the code."""

from tools.docs.outcomes import table

TRIALS = {
    "trial": "Its number. Trial 0 is the baseline.",
    "origin": "Where the config comes from: `baseline`, `sampler`, `warm start`, `interrupted`, or a recipe's name.",
    "knob_*": "The value of each knob; empty where it does not act in this config.",
    "latency_s": "Seconds of one call of the pipe: the median of the timed calls, summed over the sizes.",
    "latency_spread": "The interquartile range of the timed calls, as a share of the median.",
    "speedup": "The baseline's latency divided by this one, corrected for drift.",
    "speedup_low": "The lower end of its 95 % interval.",
    "speedup_high": "The upper end of its 95 % interval.",
    "first_call_s": "Seconds of the first call, in which compilation happens.",
    "seconds_per_picture": "Latency divided by the batch.",
    "peak_memory_bytes": "The peak of the device's memory; on a CPU, of the process's.",
    "load_peak_memory_bytes": "The peak while loading.",
    "host_memory_bytes": "The peak of the host's memory.",
    "drift": "How much slower the device was than at trial 0, as a factor.",
    "timed_calls": "How many calls were timed.",
    "quality_metric": "`clip`, or `likeness` where there is no scorer.",
    "quality_drop": "The mean paired drop against the baseline's pictures.",
    "quality_drop_low": "The lower end of its 95 % interval.",
    "quality_drop_high": "The upper end of its 95 % interval.",
    "quality_drop_detectable": "The smallest drop that so many pairs can show.",
    "pairs": "How many pairs of pictures were compared.",
    "ssim_mean": "SSIM to the baseline's pictures, the mean.",
    "ssim_worst": "SSIM to the baseline's pictures, the worst.",
    "psnr_mean_db": "PSNR to the baseline's pictures.",
    "lpips_mean": "LPIPS to the baseline's pictures, where its weights are on the disk.",
    "worst_place_levels": "The difference at the worst cell, row or column of a picture, in levels of 255.",
    "temporal_levels": "Of clips: how the change from frame to frame differs from the baseline's, in levels of 255.",
    "outcome": "`measured`, `stopped`, or the cause of the failure.",
    "reason": "Why it failed or was stopped, in a sentence.",
    "compiled_as": "The trial whose compiled code it took.",
    "quality_of": "The trial whose pictures were judged in its place.",
    "finding": "What the spot check of a reused picture found.",
    "keeps_limits": "Whether it keeps the limits of the search.",
    "on_front": "Whether it is on the Pareto front.",
    "seconds": "Of the whole trial, from its start to its score.",
}
SAMPLES = {
    "run": "`trial`, or `anchor`: the baseline measured again.",
    "number": "The trial's number; of an anchor, that of the trial after it.",
    "size": "`main`, or the size of a further workload.",
    "phase": "`first`, `warmup` or `timed`.",
    "call": "The number of the call in its phase.",
    "latency_s": "Seconds of the call.",
}
RECORDED = {
    "trial": TRIALS["trial"],
    "origin": "`baseline`, `sampler` (drawn at random), or a recipe's name.",
    "knob_*": "The value of each knob as JSON; null where it does not act in this config.",
    "outcome": "`measured`, or the cause of the failure.",
    "reason": TRIALS["reason"],
    "knob": "The knob to blame.",
    "drift": TRIALS["drift"],
    "latency_s": "The medians' sum over the sizes, divided by the drift.",
    "latency_samples_s": "Every timed call as timed.",
    "also_latency_samples_s": "The same at the workload's other sizes.",
    "peak_memory_bytes": "The peak of everything.",
    "load_peak_memory_bytes": "The peak of loading.",
    "run_peak_memory_bytes": "The peak after the first call.",
    "quality_loss": "The mean paired drop.",
    "clip_scores": "The CLIP score of each prompt's picture.",
    "ssim": "SSIM of each picture to the baseline's.",
    "psnr_db": "PSNR of each picture to the baseline's.",
    "lpips": "LPIPS of each picture to the baseline's.",
    "seconds": TRIALS["seconds"],
    "load_s": "Seconds of loading.",
    "apply_s": "Seconds of applying the knobs.",
    "first_call_s": "Seconds of the first call.",
    "also_first_call_s": "The same at the other sizes.",
    "compile_s": "Seconds of compilation, where torch tells.",
    "warmup_s": "Seconds of each warm-up call.",
    "score_s": "Seconds of judging the pictures.",
    "text_encoding_s": "Seconds of encoding the prompt, in one call.",
    "denoising_step_s": "Seconds of one denoising step.",
    "vae_decode_s": "Seconds of the VAE's decoding.",
    "energy_per_picture_j": "Joules of a picture, where the device tells.",
}


def page() -> str:
    def rows(columns: dict[str, str]) -> list[tuple[str, ...]]:
        return [(f"`{name}`", meaning) for name, meaning in columns.items()]

    head = ("column", "meaning")
    return "\n\n".join(
        [
            "# Columns of tables",
            "Units are in the names: `_s` seconds, `_bytes` bytes, `_db` decibels. What is not known is empty.",
            "## `autotune table STUDY`: one row a trial",
            table(head, rows(TRIALS)),
            "## `autotune table STUDY --samples`: one row a call",
            table(head, rows(SAMPLES)),
            "## Recorded tables (`autotune record`)",
            "A Parquet file. Its metadata have a JSON header under the key `autotune`: the target, the goal, the "
            "baseline, the space, the recipes, the metric, the command, the day, and how many configs the rules allow. "
            "`autotune.recordings.parquet.read_table(path)` reads and checks it; so does any reader of Parquet.",
            table(head, rows(RECORDED)),
        ]
    )
