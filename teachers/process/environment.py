"""The environment variables that this program reads or sets, for the reference; where each is used, it is spelled again."""

from typing import Literal, NamedTuple

Group = Literal["Collegium", "Clusters", "MLflow", "Storage", "Set by Collegium"]


class Variable(NamedTuple):
    group: Group
    default: str
    """What holds where it is not set. Of what Collegium sets: the value, unless yours stands there."""
    meaning: str


VARIABLES: dict[str, Variable] = {
    "COLLEGIUM_AUTOSCALING": Variable(
        "Collegium",
        "0",
        "1: the cluster adds nodes on demand. What no node can hold now waits, and nothing is refused.",
    ),
    "COLLEGIUM_CACHE": Variable(
        "Collegium",
        "~/.cache/collegium",
        "Folder of the mirrors of an OUT in an object store; the driver's holds on all nodes.",
    ),
    "COLLEGIUM_CACHE_BYTES": Variable(
        "Collegium", "half of what the disk has for them", "How much the mirrors may take: `10GB`, `512MiB`, or bytes."
    ),
    "COLLEGIUM_LOG_FORMAT": Variable(
        "Collegium", "text", "As `--log-format`: `text`, or `json` for one object a line."
    ),
    "COLLEGIUM_POOLS": Variable(
        "Collegium",
        "none",
        "On a head: JSON with each pool of nodes that may be added, its `nodes` and the resources of one.",
    ),
    "COLLEGIUM_PREPARE_BYTES": Variable(
        "Collegium",
        "256MiB",
        "How much memory preparing takes in each process, the driver too, beside Python and one part of a segment; more means fewer files.",
    ),
    "COLLEGIUM_USERS_CODE": Variable(
        "Set by Collegium",
        "the digest of the user's modules",
        "Of a run's workers on a cluster that was joined: none that holds other code is given to it.",
    ),
    "COLLEGIUM_VERSION": Variable(
        "Collegium",
        "none",
        "In a submitted job: the version that sent it. Another one there ends the job with exit code 4.",
    ),
    "RAY_ADDRESS": Variable(
        "Clusters", "start Ray here", "The cluster that is joined, as `--address`; Ray sets it in a job."
    ),
    "RAY_API_SERVER_ADDRESS": Variable(
        "Clusters", "RAY_ADDRESS", "The dashboard that `submit` and `jobs` speak to: `http://HEAD:8265`."
    ),
    "RAY_AUTH_MODE": Variable("Clusters", "token", "`token`, or `disabled` for a cluster that lets everybody in."),
    "RAY_AUTH_TOKEN": Variable(
        "Clusters", "the file below", "The token of a cluster; printed nowhere, never passed on."
    ),
    "RAY_AUTH_TOKEN_PATH": Variable(
        "Clusters", "~/.ray/auth_token", "File of the token, mode 0600; for Ray started here one of its own."
    ),
    "RAY_JOB_CONFIG_JSON_ENV_VAR": Variable(
        "Clusters", "none", "Ray's own: the runtime environment of a submitted job."
    ),
    "RAY_TMPDIR": Variable(
        "Clusters", "TMPDIR", "Where Ray lives, and notes the cluster that runs on this machine, for `--address auto`."
    ),
    "RAY_USE_TLS": Variable(
        "Clusters", "0", "1: the cluster speaks TLS; then only Ray itself can tell whether a token fits."
    ),
    "TMPDIR": Variable(
        "Clusters",
        "/tmp",
        "The same on Linux, where RAY_TMPDIR is not set; one too long for Ray's sockets is left for /tmp.",
    ),
    "GLOO_SOCKET_IFNAME": Variable(
        "Clusters", "the interface of the node's address", "Network on which training workers meet."
    ),
    "MLFLOW_TRACKING_URI": Variable(
        "MLflow", "SQLite in OUT", "Tracking server, where the recipe has no `tracking.uri`."
    ),
    "MLFLOW_TRACKING_USERNAME": Variable("MLflow", "none", "For the server; passed on to a job with `--env` only."),
    "MLFLOW_TRACKING_PASSWORD": Variable("MLflow", "none", "The same."),
    "MLFLOW_TRACKING_TOKEN": Variable("MLflow", "none", "The same."),
    "AWS_ENDPOINT_URL_S3": Variable(
        "Storage", "AWS_ENDPOINT_URL", "Server of `s3://`; goes to all nodes from the driver."
    ),
    "AWS_ENDPOINT_URL": Variable("Storage", "AWS's own", "The same, for all services."),
    "AWS_REGION": Variable("Storage", "AWS_DEFAULT_REGION", "Region of `s3://`; goes to all nodes from the driver."),
    "AWS_DEFAULT_REGION": Variable("Storage", "the profile's", "The same."),
    "AWS_ACCESS_KEY_ID": Variable(
        "Storage",
        "the provider's chain",
        "Credentials of `s3://`, on each machine its own; passed on with `--env` only.",
    ),
    "AWS_SECRET_ACCESS_KEY": Variable("Storage", "the provider's chain", "The same."),
    "AWS_SESSION_TOKEN": Variable("Storage", "the provider's chain", "The same."),
    "AWS_PROFILE": Variable("Storage", "the provider's chain", "Profile of the credentials."),
    "GOOGLE_APPLICATION_CREDENTIALS": Variable(
        "Storage", "the provider's chain", "File of the credentials of `gs://`; passed on with `--env` only."
    ),
    "STORAGE_EMULATOR_HOST": Variable(
        "Storage", "none", "A server that stands in for Google Cloud Storage, for tests."
    ),
    "HF_TOKEN": Variable("Storage", "none", "A secret that a teacher of yours may need; passed on with `--env` only."),
    "XDG_CACHE_HOME": Variable("Storage", "~/.cache", "Parent of the default COLLEGIUM_CACHE."),
    "OMP_NUM_THREADS": Variable(
        "Set by Collegium", "the CPUs of a replica or worker", "Threads of its numerical libraries."
    ),
    "MLFLOW_DISABLE_TELEMETRY": Variable("Set by Collegium", "true", "Nothing is sent to MLflow's makers."),
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": Variable(
        "Set by Collegium", "0", "The tracker tries again itself, when it has time."
    ),
    "MLFLOW_HTTP_REQUEST_TIMEOUT": Variable("Set by Collegium", "10", "Seconds."),
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": Variable("Set by Collegium", "false", "`collegium ui` starts no jobs."),
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": Variable("Set by Collegium", "true", "Stdout is for results."),
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": Variable("Set by Collegium", "1", "SIGTERM is ours: it ends a run with 143."),
    "RAY_ENABLE_AUTO_CONNECT": Variable("Set by Collegium", "0", "A thread that outlives its cluster starts no other."),
    "RAY_IGNORE_UNHANDLED_ERRORS": Variable(
        "Set by Collegium", "1", "Nobody waits for the answers of a run that has failed."
    ),
    "RAY_JOB_STOP_WAIT_TIME_S": Variable(
        "Set by Collegium", "30", "Seconds that a stopped job has to say how far it is."
    ),
    "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": Variable(
        "Set by Collegium", "600", "Ray's default waits for ever for a rank that is gone."
    ),
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": Variable(
        "Set by Collegium", "0", "For Ray started here: this machine is not taken away."
    ),
    "RAY_num_workers_soft_limit": Variable(
        "Set by Collegium",
        "two a core and 8",
        "For Ray started here: up to so many processes it keeps idle ones, which have imported torch.",
    ),
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": Variable(
        "Set by Collegium", "0.2", "Reports and failures are seen that often."
    ),
    "RAY_USAGE_STATS_ENABLED": Variable("Set by Collegium", "0", "Nothing is sent to Ray's makers."),
    "RAY_CHDIR_TO_TRIAL_DIR": Variable("Set by Collegium", "0", "Trials stay in the folder where you started."),
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": Variable(
        "Set by Collegium", "1", "`trials.jsonl` is the record of a search."
    ),
    "TUNE_FORCE_TRIAL_CLEANUP_S": Variable(
        "Set by Collegium", "5", "A trainer inside a trial that was ended does not train on."
    ),
    "TUNE_GLOBAL_CHECKPOINT_S": Variable("Set by Collegium", "600", "Ray Tune's own state is never read."),
    "TUNE_ORIG_WORKING_DIR": Variable(
        "Set by Collegium", "1", "As RAY_CHDIR_TO_TRIAL_DIR, for older workers of Ray Tune."
    ),
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": Variable(
        "Set by Collegium", "3600", "No warning about that state."
    ),
}
