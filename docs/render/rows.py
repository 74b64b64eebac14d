"""The rows of the pages of figures: one for each thing that was measured."""

from .figures import Figure

SPEED = {
    "run": Figure("`make run` after installation", "make", "{run_s} s", "<= 120 s"),
    "memory": Figure("memory of all its processes (PSS)", "make", "{run_pss_gib} GiB"),
    "again": Figure("the same again, all stages reused", "make", "{again_s} s", "<= 20 s"),
    "test": Figure("`make test` after installation", "make", "{test_s} s, {tests:,} tests", "<= 900 s"),
    "help": Figure(
        "CPU time of `collegium --help` over that of an interpreter that does nothing",
        "command",
        "{help_cpu_s:.2f} s (the interpreter {python_cpu_s:.3f} s)",
        "<= 0.15 s",
    ),
    "cached": Figure(
        "cached distillation from three teachers over plain cross-entropy, same conv net, batch 256",
        "training",
        "{cached_over_plain_training:.3f} x the time (plain step {plain_step_ms:.0f} ms)",
        "<= 1.05",
    ),
    "live-loop": Figure(
        "a plain loop with the three teachers live (widths 16, 24, 32; student 8) over ours",
        "training",
        "{live_over_cached:.2f} x the time",
        ">= 4",
    ),
    "textbrewer": Figure(
        "TextBrewer's multi-teacher distiller over ours", "training", "{textbrewer_over_cached:.2f} x the time"
    ),
    "tiny": Figure(
        "what is added to a step of a tiny MLP, batch 64, over a plain step",
        "training",
        "{tiny_extra_us:.0f} us over {tiny_plain_us:.0f} us",
        "<= .4 of it",
    ),
    "epochs": Figure(
        "shuffled epochs at batch 1024 over `index_select` from RAM; data in memory; rows of 60, 200, 252, 2000 bytes",
        "store",
        "{cases[60][resident][time]:.2f} / {cases[200][resident][time]:.2f} / {cases[252][resident][time]:.2f} / "
        "{cases[2000][resident][time]:.2f} x the time",
        "<= 1.5",
    ),
    "windows": Figure(
        "the same, data outside the reader's memory, with a shuffle window",
        "store",
        "{cases[60][windowed][time]:.2f} / {cases[200][windowed][time]:.2f} / {cases[252][windowed][time]:.2f} / "
        "{cases[2000][windowed][time]:.2f} x the time",
        "<= 1.5",
    ),
    "global": Figure(
        "the same without a window: set `train.shuffle_window`",
        "store",
        "{ranges[global][0]:.2f} to {ranges[global][1]:.2f} x the time",
    ),
    "formats": Figure(
        "Hugging Face datasets / Parquet / np.memmap in place of our reader",
        "store",
        "{ranges[Hugging Face datasets][0]:,.0f} to {ranges[Hugging Face datasets][1]:,.0f} x / {ranges[Parquet][0]:,.0f} to "
        "{ranges[Parquet][1]:,.0f} x / {ranges[np.memmap][0]:.1f} to {ranges[np.memmap][1]:.1f} x",
    ),
    "labelling": Figure(
        "labelling by two replicas over the faster of two plain loops, real conv net",
        "labelling",
        "{real_over_plain_loop:.3f} x the rows/s ({real_rows_per_s:,} rows/s; actors start in {actor_start_s} s)",
        ">= 0.95",
    ),
    "nothing": Figure(
        "a teacher that does nothing: our actors over Ray Data, start included",
        "labelling",
        "{noop_over_ray_data:.2f} x the rows/s ({noop_rows_per_s:,} rows/s)",
        ">= 4",
    ),
    "peers": Figure(
        "a step of two peers on two workers over two independent trainings side by side, conv net",
        "cohort",
        "{cohort_over_independent:.3f} x the time",
        "<= 1.15",
    ),
    "tiny-peers": Figure(
        "the same for a tiny MLP: set `workers_per_member: null`",
        "cohort",
        "{cohort_over_independent_mlp:.1f} x the time (a step is {independent_step_ms_mlp:.1f} ms)",
    ),
    "exchange": Figure(
        "what a step of 2 / 4 / 8 ranks exchanges, batch 256, 10 classes; its share of the time, on two cores, waiting included",
        "cohort",
        "{exchange[2][bytes]:,.0f} bytes a rank; {exchange[2][share]:percent} / {exchange[4][share]:percent} / {exchange[8][share]:percent}",
    ),
    "straggler": Figure(
        "a codistilling member beside a peer slowed five times, over beside a dead one",
        "cohort",
        "{codistillation_with_straggler_over_solo:.3f} x the steps/s",
        ">= 0.95",
    ),
    "busy": Figure(
        "200 trainings over 64 GPUs on virtual time: share of all GPU time in use, least of 5 draws; where each takes between half and "
        "twice of what was thought",
        "schedule",
        "{gpu_busy:percent}; {gpu_busy_misjudged:percent}",
        ">= 95 %",
    ),
    "trainings": Figure(
        "10 students x 3 seeds and their controls (60 trainings of `digits`) on two cores, over the version before they were scheduled "
        "together, which trains all of them on one worker in turn",
        "schedule",
        "{time_over_before:.2f} x the time",
        "<= 0.6",
    ),
    "elastic": Figure(
        "three teachers whose shards take 1:3:9, each by one replica to four, share four seats: until all labels are there, over all "
        "their time / 4",
        "schedule",
        "{labelling_makespan_over_bound:.3f} x the time",
        "<= 1.1",
    ),
    "dispatch": Figure(
        "a labelling by 1,000 replicas on virtual time, of which 1 % die a minute and a third at once, and come back: over all its work "
        "by the replicas that are there; what is computed for nothing; the driver's CPU for each shard",
        "dispatch",
        "{dispatch_over_bound:.3f} x the time; {wasted_work:percent}; {dispatch_ms_per_shard:.2f} ms",
        "<= 1.1; <= 2 %",
    ),
    "live": Figure(
        "a step with a live teacher over the larger of teacher and student time",
        "live",
        "{live_over_max:.3f} x the time, {wait_share:percent} of it waiting",
        "<= 1.15",
    ),
    "study": Figure(
        "a trial of plain loops with three live teachers over a trial of ours, 20 trials, two at a time",
        "tune",
        "{live_over_cached_study:.2f} x the time",
        ">= 4",
    ),
    "optuna": Figure(
        "our study over plain Optuna with two processes and a loop by hand, same trials and steps",
        "tune",
        "{study_over_plain_optuna:.3f} x the time",
        "<= 1.3",
    ),
    "trial": Figure(
        "what a trial costs beside its steps; after the first two",
        "tune",
        "{trial_overhead_s:.2f} s; {trial_overhead_later_s:.2f} s",
        "<= 2 s",
    ),
    "scaling": Figure(
        "labelling over three nodes by a teacher that sleeps: time of 1 replica over n x the time of n, n = 2 / 4 / 8",
        "cluster",
        "{scaling_efficiency_2:.3f} / {scaling_efficiency_4:.3f} / {scaling_efficiency_8:.3f}",
        ">= 0.95",
    ),
    "driver": Figure(
        "the driver's CPU for each of 10,000 tiny shards",
        "cluster",
        "{driver_ms_per_shard:.2f} ms; {tiny_shards_per_s} shards/s; memory after 10,000 over after 1,000: {driver_rss_growth:.3f}",
        "<= 1 ms",
    ),
    "submit": Figure(
        "from `collegium submit` to the first labelled shard, less the same of a local run, which starts its own Ray",
        "cluster",
        "{submit_extra_s:g} s",
        "<= 15 s",
    ),
    "scale": Figure(
        "a store of a million shards and a billion rows, its files sparse: the driver's memory; resumed with half of them / `status` / "
        "sealed / every byte verified",
        "scale",
        "{driver_rss_mb:,} MB; {resume_s:.0f} / {status_s:.0f} / {seal_s:.0f} / {verify_s:.0f} s",
        "<= 1,000 MB",
    ),
    "follow": Figure(
        "a student that follows its teacher, Fashion-MNIST, over the longer of labelling and training alone; over both in turn; its test "
        "accuracy less that of a student of sealed labels, three seeds, and two standard errors of it",
        "follow",
        "{follow_over_max:.2f} x the time; {follow_over_sum:.2f}; {accuracy_gap:+.4f}, {noise:.4f}",
        "<= 1.25; the gap within",
    ),
    "prepare": Figure(
        "preparing rows of 100 bytes over reading and writing them once with pyarrow, two workers on two cores; memory of the driver, "
        "of a worker",
        "prepare",
        "{prepare_over_copy:.2f} x the time ({rows:,} rows in {prepare_s:.0f} s); {driver_rss_mb:,} MB, {worker_rss_mb:,} MB",
        "<= 4; < 1,000 MB",
    ),
    "requests": Figure(
        "requests for each shard of a store in a bucket: written / sealed / listed by `status` / resumed from an empty cache / verified",
        "scale",
        "{requests[write]:g} / {requests[seal]:g} / {requests[status]:g} / {requests[resume]:g} / {requests[verify]:g}",
        "<= 2",
    ),
    "text": Figure(
        "text: labelling by a Hugging Face encoder over a bare loop of the same batches; a `bag` step over plain torch; derived "
        "token ids over the tokenizer alone",
        "text",
        "{encoder_over_bare:.3f} x the rows/s / {bag_over_plain:.2f} x the time / {derive_over_tokenizer:.2f} x the rows/s",
        ">= .95 / <= 1.1 / >= .9",
    ),
    "endpoint": Figure(
        "an endpoint of 50 ms and 100 requests/s: answers over its limit, told and not told; answers bought twice after 10 kills",
        "endpoint",
        "{rate_over_limit:.3f} / {rate_limit_unknown:.3f}; {paid_twice}",
        ">= .95; 0",
    ),
    "boxes": Figure(
        "weighted fusion of three detectors over the package of its authors, 1,525 images, one thread",
        "detection",
        "{wbf_speedup:.1f} x as fast",
        ">= 3",
    ),
    "boxes-step": Figure(
        "a student's step from stores of boxes over a plain step with the same boxes, `tiny_detector`, 8 images of 256 pixels",
        "detection",
        "{cached_over_plain:.3f} x the time (plain step {plain_step_ms:.0f} ms)",
        "<= 1.05",
    ),
    "decode": Figure(
        "encoded images: what of labelling by a teacher that does nothing is decoding",
        "decode",
        "{decode_share:percent}",
        ">= 85 %",
    ),
    "methods": Figure(
        "a step with one loss of logits over cross-entropy alone, the dearest; a rule of three teachers over one teacher, the dearest",
        "methods",
        "{dearest_over_hard:.3f} x the time ({dearest_over_hard_is}); {dearest_of_three_over_soft:.3f} x ({dearest_of_three_over_soft_is})",
        "<= 1.15; <= 1.10",
    ),
    "hints": Figure(
        "a step with one stored hint over the step without, batch 256 on a CPU: FitNets', attention, channel_wise, linear_embedding; similarity, "
        "correlation; review, contrastive; relation of whole maps by distances alone, with angles",
        "hints",
        "{hint_over_soft:.2f}, {attention_over_soft:.2f}, {channel_wise_over_soft:.2f}, {linear_embedding_over_soft:.2f}; {similarity_over_soft:.2f}, "
        "{correlation_over_soft:.2f}; {review_over_soft:.2f}, {contrastive_over_soft:.2f}; {distances_over_soft:.2f}, {relation_over_soft:.2f} x the time",
        "<= 1.3",
    ),
    "views": Figure(
        "a step in views over one on rows as they are, conv net, batch 256: flips and crops; mixup",
        "views",
        "{views_over_plain:.3f}; {mixed_over_plain:.3f} x the time",
        "<= 1.1",
    ),
    "published": Figure(
        "labelling by a Hugging Face folder as large as MiniLM over a bare loop of the same batches",
        "published",
        "{labelling_over_bare:.3f} x the rows/s",
        ">= .95",
    ),
    "big-study": Figure("`collegium report` of a search of 10,000 trials", "search", "{report_s} s, {report_gb} GB"),
}
ACCURACY = {
    "digits": Figure(
        "student over its control, `digits`, 100 labels",
        "make",
        "{student:.3f} over {control:.3f}: {gain_points:+.1f} points ({low:+.1f} to {high:+.1f}; {seeds} seeds)",
    ),
    "digits-tuned": Figure(
        "student over a tuned control; over self-training: `digits`, mean of five further splits",
        "digits",
        "{gain_over_tuned_control:points}; {gain_over_self_training:points}",
        ">= 3 points",
    ),
    "fashion": Figure(
        "Fashion-MNIST, all labels: student over its control, three seeds",
        "fashion",
        "{student[0]:.3f} ± {student[1]:.3f} over {control[0]:.3f} ± {control[1]:.3f}: {gain_points:+.1f} points "
        "({low:+.1f} to {high:+.1f}), no difference shown",
    ),
    "cells": Figure(
        "`collegium run cells`, AP of 72 images: the student over its control; teachers learnt 127 images",
        "cells",
        "{labelled} labelled images: {student:.3f} over {control:.3f}: {gain_points:+.1f} points ({low:+.1f} to {high:+.1f}; {seeds} seeds); teachers {large:.3f} and "
        "{middle:.3f}, together {together:.3f}",
        ">= 4 points",
    ),
    "search": Figure(
        "`collegium tune search`: the best setting over the tuned control, five fresh seeds",
        "search",
        "{gain_points:+.1f} points ({low:+.1f} to {high:+.1f})",
    ),
    "online": Figure(
        "`collegium run online`: the student over its control",
        "cohorts",
        "{gain_points:+.1f} points ({low:+.1f} to {high:+.1f})",
    ),
}
