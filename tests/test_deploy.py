"""What deploy/ and cluster.yaml say, checked offline: by Ray's own readers, by the lock, and by the commands themselves."""

import copy
import json
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
import yaml

from orchestrator.cli.main import collegium

from .kubernetes_fields import KINDS

ROOT = Path(__file__).parents[1]
LAUNCHED = ("cluster.yaml", "deploy/on-premise.yaml")
KUBERNETES = ("deploy/mlflow.yaml", "deploy/raycluster.yaml", "deploy/rayjob.yaml")
FILES = ("cluster.yaml", *(f"deploy/{path.name}" for path in sorted((ROOT / "deploy").iterdir()) if path.is_file()))
POOLS = ("teachers", "students", "cpu")
GUIDE = (ROOT / "deploy/README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = dict(re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)$", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
TAG = f"{PROJECT['version']}-ray{LOCK['ray']}-py{PROJECT['requires-python'].removeprefix('>=').replace('.', '')}"
HOSTS = {  # whose names a file may hold; example.com belongs to nobody
    *("registry.example.com", "127.0.0.1", "0.0.0.0", "localhost", "mlflow"),
    *("astral.sh", "pypi.org", "download.pytorch.org", "checkip.amazonaws.com", "ray-project.github.io"),
}


def loaded(file: str) -> Any:
    return yaml.safe_load((ROOT / file).read_text())


def objects() -> Iterator[tuple[str, Any]]:
    for file in KUBERNETES:
        for found in yaml.safe_load_all((ROOT / file).read_text()):
            yield f"{file}:{found['kind']}", found


OBJECTS = dict(objects())
CLUSTER, JOB = OBJECTS["deploy/raycluster.yaml:RayCluster"], OBJECTS["deploy/rayjob.yaml:RayJob"]


def pods() -> Iterator[tuple[str, Any]]:
    """Every pod that the files ask for, by what asks for it."""
    yield "mlflow", OBJECTS["deploy/mlflow.yaml:Deployment"]["spec"]["template"]
    for where, spec in [("cluster", CLUSTER["spec"]), ("job", JOB["spec"]["rayClusterSpec"])]:
        yield f"{where}/head", spec["headGroupSpec"]["template"]
        for group in spec["workerGroupSpecs"]:
            yield f"{where}/{group['groupName']}", group["template"]


def shell_commands(file: str) -> list[str]:
    return [command for key, value in loaded(file).items() if key.endswith("_commands") for command in value]


# What Ray's launcher reads ----------------------------------------------------------------------------------------------


def accepted(config: dict[str, Any]) -> dict[str, Any]:
    """As the launcher would take it, offline. Raises what it raises."""
    launcher = pytest.importorskip("ray.autoscaler._private.util", reason="this Ray has its launcher elsewhere")
    prepared: dict[str, Any] = launcher.prepare_config(copy.deepcopy(config))
    launcher.validate_config(prepared)
    return prepared


@pytest.mark.parametrize("file", LAUNCHED)
def test_the_launcher_accepts_the_file_and_would_not_accept_a_slip(file: str) -> None:
    accepted(loaded(file))
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout_minute"):
        accepted(loaded(file) | {"idle_timeout_minute": 1})


@pytest.mark.parametrize("file", LAUNCHED)
def test_every_shell_command_can_be_parsed_by_a_shell(file: str) -> None:
    for command in shell_commands(file):
        done = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stderr}"


@pytest.mark.parametrize("file", LAUNCHED)
def test_every_node_has_the_token_and_asks_for_it(file: str) -> None:
    config = loaded(file)
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert any("RAY_AUTH_MODE=token" in command for command in config["setup_commands"])


@pytest.mark.parametrize("file", LAUNCHED)
def test_what_is_copied_to_the_nodes_lies_in_a_checkout(file: str) -> None:
    sources = set(loaded(file)["file_mounts"].values()) - {"~/.ray/auth_token"}
    assert sources and all((ROOT / source).is_file() for source in sources)


@pytest.mark.parametrize("file", LAUNCHED)
def test_mlflow_is_at_a_private_address_and_the_dashboard_wants_the_token(file: str) -> None:
    (server,) = [command for command in shell_commands(file) if "mlflow_on_head.py" in command]
    assert "0.0.0.0" not in server and re.search(r"--keep (s3:/)?/\S+", server)
    (head,) = [command for command in shell_commands(file) if "ray start --head" in command]
    assert "MLFLOW_TRACKING_URI=http://" in head and "RAY_AUTH_MODE" not in head  # that of the shell, which is token
    assert "--dashboard-host=0.0.0.0" in head  # on loopback, trainers on other nodes could not ask it


@pytest.mark.parametrize("file", LAUNCHED)
def test_no_cluster_sends_usage_statistics(file: str) -> None:
    """The launcher exports its own RAY_USAGE_STATS_ENABLED to the head, over that of the shell: only the option counts."""
    (head,) = [command for command in shell_commands(file) if "ray start --head" in command]
    assert "--disable-usage-stats" in shlex.split(head.rpartition(";")[2])


def test_no_host_of_a_list_is_left_out_for_the_head() -> None:
    """Ray's second autoscaler takes a local head for one of the workers that `min_workers` counts; the launcher exports it."""
    config = loaded("deploy/on-premise.yaml")
    (head,) = [command for command in config["head_start_ray_commands"] if "ray start --head" in command]
    assert "RAY_enable_autoscaler_v2=0" in head
    assert config["min_workers"] == config["max_workers"] == len(config["provider"]["worker_ips"])


def test_the_head_on_aws_does_no_work_and_every_pool_can_be_empty() -> None:
    config = accepted(loaded("cluster.yaml"))
    types = config["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0, "GPU": 0}
    assert set(types) == {"head", *POOLS}
    assert all(types[pool]["min_workers"] == 0 for pool in POOLS)
    assert 0 < config["idle_timeout_minutes"] <= 60
    assert config["provider"]["cache_stopped_nodes"] is False  # stopped nodes would cost their disks


def test_teachers_are_on_spot_nodes_and_students_are_not() -> None:
    types = loaded("cluster.yaml")["available_node_types"]
    spot = {name for name, kind in types.items() if "InstanceMarketOptions" in kind["node_config"]}
    assert spot == {"teachers", "cpu"}


def test_each_node_on_aws_has_a_profile_that_the_account_is_given() -> None:
    made = loaded("deploy/aws-access.yaml")["Resources"].values()
    profiles = {each["Properties"].get("InstanceProfileName") for each in made}
    types = loaded("cluster.yaml")["available_node_types"]
    assert {kind["node_config"]["IamInstanceProfile"]["Name"] for kind in types.values()} == profiles - {None}
    groups = {each["Properties"].get("GroupName") for each in made}
    assert loaded("cluster.yaml")["provider"]["security_group"] == {"GroupName": "collegium"}
    assert "collegium" in groups


def test_nobody_gets_more_of_the_account_than_the_bucket_and_this_cluster() -> None:
    made = loaded("deploy/aws-access.yaml")["Resources"]
    statements = [
        statement
        for each in made.values()
        for policy in [each["Properties"], *each["Properties"].get("Policies", [])]
        for statement in policy.get("PolicyDocument", {}).get("Statement", [])
    ]
    for statement in statements:
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        assert not {"*", "s3:*", "ec2:*", "iam:*"} & set(actions)
        if any(action.startswith(("s3:", "iam:")) for action in actions):
            assert statement["Resource"] != "*"
        if "ec2:TerminateInstances" in actions:
            assert statement["Condition"]["StringEquals"] == {
                "ec2:ResourceTag/ray-cluster-name": loaded("cluster.yaml")["cluster_name"]
            }


def test_nothing_but_ssh_comes_in_from_outside() -> None:
    firewall = loaded("deploy/aws-access.yaml")["Resources"]["Firewall"]["Properties"]
    assert firewall["SecurityGroupIngress"] == [
        {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "CidrIp": {"Ref": "SshFrom"}}
    ]


def test_the_quota_that_the_guide_asks_for_is_that_of_full_pools() -> None:
    types = loaded("cluster.yaml")["available_node_types"]
    spot, demand, plain = (types[pool]["max_workers"] * types[pool]["resources"]["CPU"] for pool in POOLS)
    asked = re.findall(r"(\d+) of (?:spot )?nodes", GUIDE)
    assert asked == [str(spot), str(demand), str(plain)]


# What Kubernetes and KubeRay read ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", OBJECTS)
def test_kubernetes_objects_have_only_documented_fields(which: str) -> None:
    validator = jsonschema.Draft202012Validator(KINDS[OBJECTS[which]["kind"]])
    assert [f"{error.json_path}: {error.message}" for error in validator.iter_errors(OBJECTS[which])] == []


def test_a_slip_in_a_field_is_found() -> None:
    slip = copy.deepcopy(CLUSTER)
    slip["spec"]["workerGroupSpecs"][0]["minReplica"] = slip["spec"]["workerGroupSpecs"][0].pop("minReplicas")
    assert len(list(jsonschema.Draft202012Validator(KINDS["RayCluster"]).iter_errors(slip))) == 2


def test_a_job_has_the_cluster_of_the_other_file_and_its_recipe() -> None:
    spec = copy.deepcopy(JOB["spec"]["rayClusterSpec"])
    head = spec["headGroupSpec"]["template"]["spec"]
    assert head["volumes"].pop() == {"name": "recipe", "configMap": {"name": "recipe"}}
    assert head["containers"][0]["volumeMounts"].pop() == {"name": "recipe", "mountPath": "/recipe", "readOnly": True}
    assert spec == CLUSTER["spec"]
    assert shlex.split(JOB["spec"]["entrypoint"])[:3] == ["collegium", "run", "/recipe/recipe.yaml"]


def test_the_autoscaler_sees_a_head_that_does_no_work_and_pools_that_can_be_empty() -> None:
    reader = pytest.importorskip("ray.autoscaler._private.kuberay.autoscaling_config", reason="moved in this Ray")
    types = reader._derive_autoscaling_config_from_ray_cr(CLUSTER)["available_node_types"]
    assert {name: types["headgroup"]["resources"][name] for name in ("CPU", "GPU")} == {"CPU": 0, "GPU": 0}
    assert all(types[pool]["min_workers"] == 0 < types[pool]["max_workers"] for pool in POOLS)
    gpus = {pool: types[pool]["resources"].get("GPU", 0) for pool in POOLS}
    assert gpus == {"teachers": 1, "students": 1, "cpu": 0}


def test_pools_are_called_alike_on_aws_and_on_kubernetes() -> None:
    types = loaded("cluster.yaml")["available_node_types"]
    for group in CLUSTER["spec"]["workerGroupSpecs"]:
        named = json.loads(json.loads(group["rayStartParams"].get("resources", '"{}"')))
        ours = types[group["groupName"]]["resources"]
        assert named == {name: amount for name, amount in ours.items() if name not in ("CPU", "GPU")}


@pytest.mark.parametrize("name,pod", list(pods()), ids=lambda value: value if isinstance(value, str) else "")
def test_pods_run_without_rights_and_say_what_they_need(name: str, pod: Any) -> None:
    spec = pod["spec"]
    assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] == 1000
    for container in spec["containers"]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]
        assert "nvidia.com/gpu" in container["resources"]["limits"] or not container["image"].endswith("cuda")
        mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
        assert mounted == {volume["name"] for volume in spec.get("volumes", [])}


def test_nothing_on_kubernetes_can_be_reached_from_outside() -> None:
    services = [found for found in OBJECTS.values() if found["kind"] == "Service"]
    assert services and all(service["spec"]["type"] == "ClusterIP" for service in services)
    for file in KUBERNETES:
        assert not re.search(r"LoadBalancer|NodePort|Ingress\b(?!\])|hostNetwork|hostPort", (ROOT / file).read_text())
    policy = OBJECTS["deploy/mlflow.yaml:NetworkPolicy"]["spec"]
    assert policy["podSelector"] == {} and policy["policyTypes"] == ["Ingress"]
    assert {"podSelector": {}} in policy["ingress"][0]["from"]


def test_runs_on_kubernetes_find_the_mlflow_that_is_there() -> None:
    service = OBJECTS["deploy/mlflow.yaml:Service"]
    uri = f"http://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    for name, pod in pods():
        environment = {each["name"]: each["value"] for each in pod["spec"]["containers"][0]["env"]}
        assert environment.get("MLFLOW_TRACKING_URI") == (None if name == "mlflow" else uri)
    server = OBJECTS["deploy/mlflow.yaml:Deployment"]["spec"]["template"]["spec"]["containers"][0]
    (allowed,) = [argument for argument in server["args"] if argument.startswith("--allowed-hosts=")]
    assert uri.removeprefix("http://") in allowed.partition("=")[2].split(",")


def pools_of(types: Any) -> dict[str, dict[str, float]]:
    """What COLLEGIUM_POOLS has to say of the autoscaler's node types."""
    named = {pool: types[pool]["resources"] | {"nodes": types[pool]["max_workers"]} for pool in POOLS}
    return {
        pool: {name: amount for name, amount in named[pool].items() if amount and name != "memory"} for pool in POOLS
    }


def test_a_job_on_aws_is_told_of_the_pools_that_there_are() -> None:
    (start,) = [command for command in shell_commands("cluster.yaml") if "ray start --head" in command]
    told = json.loads(re.findall(r"export COLLEGIUM_POOLS='([^']*)'", start)[0])
    assert told == pools_of(loaded("cluster.yaml")["available_node_types"])


def test_a_job_on_kubernetes_is_told_of_the_pools_that_there_are() -> None:
    reader = pytest.importorskip("ray.autoscaler._private.kuberay.autoscaling_config", reason="moved in this Ray")
    head = CLUSTER["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    told = {each["name"]: each["value"] for each in head["env"]}["COLLEGIUM_POOLS"]
    types = reader._derive_autoscaling_config_from_ray_cr(CLUSTER)["available_node_types"]
    assert json.loads(told) == pools_of(types)


# Versions, secrets, hosts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", FILES)
def test_versions_are_those_of_the_lock(file: str) -> None:
    text = (ROOT / file).read_text()
    assert {tag.rpartition("-")[0] for tag in re.findall(r"/collegium:([\w.-]+)", text)} <= {TAG}
    assert all(LOCK.get(package) == version for package, version in re.findall(r"\b([\w-]+)==([\w.]+)", text))
    python = PROJECT["requires-python"].removeprefix(">=")
    named = re.findall(r"--python (\d[\d.]*)|\bpython:(\d+\.\d+)|\bPython (\d+\.\d+)", text)
    assert {version for match in named for version in match if version} <= {python}


def test_all_images_have_a_tag_and_the_ray_of_the_lock() -> None:
    for name, pod in pods():
        for container in pod["spec"]["containers"]:
            assert re.fullmatch(rf"registry\.example\.com/collegium:{re.escape(TAG)}-(cpu|cuda)", container["image"]), (
                name
            )
    assert CLUSTER["spec"]["rayVersion"] == LOCK["ray"]
    assert "mlflow" in LOCK  # it is in the image by the lock, under no version of its own


def test_the_two_launched_clusters_are_set_up_alike() -> None:
    uv = {match for file in LAUNCHED for match in re.findall(r"astral\.sh/uv/([\d.]+)/", (ROOT / file).read_text())}
    assert len(uv) == 1


@pytest.mark.parametrize("file", FILES)
def test_no_file_holds_a_secret_an_account_or_a_host_that_exists(file: str) -> None:
    text = (ROOT / file).read_text()
    assert not re.search(r"AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY|\b[0-9a-f]{32,}\b", text)
    assert not re.search(r"\b\d{12}\b|\b(ami|sg|subnet|vpc|i)-[0-9a-f]{8,}\b", text)
    assert not re.search(r"(?i)(password|secret|token|access_key)\w*['\"]?\s*[:=]\s*['\"]?[A-Za-z0-9+/]{16,}", text)
    addresses = set(re.findall(r"\b\d{1,3}(?:\.\d{1,3}){3}\b", text))
    assert all(address in HOSTS or address.startswith("192.0.2.") for address in addresses)
    named = {host.partition(":")[0] for host in re.findall(r"(?:https?|ssh)://([\w.:-]+)", text)}
    assert {host for host in named if "$" not in host and not host.startswith("192.0.2.")} <= HOSTS
    buckets = set(re.findall(r"s3://([\w.-]+)", text))
    assert buckets <= {"REPLACE-BUCKET", "BUCKET"}  # no bucket has capitals in its name


# The images -------------------------------------------------------------------------------------------------------------


def stages() -> dict[str, list[tuple[str, str]]]:
    """Instructions of each stage of the Dockerfile, in order; the first one is FROM."""
    text = re.sub(r"^#.*\n", "", (ROOT / "deploy/Dockerfile").read_text(), flags=re.MULTILINE)
    found: dict[str, list[tuple[str, str]]] = {}
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        if line:
            instruction, _, rest = line.partition(" ")
            if instruction == "FROM":
                found[rest.rpartition(" AS ")[2]] = []
            list(found.values())[-1].append((instruction, rest))
    return found


def test_images_are_built_from_the_lock_for_a_user_without_rights() -> None:
    known = stages()
    assert list(known) == ["wheel", "system", "cpu", "cuda"]
    for target in ("cpu", "cuda"):
        instructions = known[target]
        (dependencies,) = [rest for _, rest in instructions if "--requirement" in rest]
        assert "--constraint requirements.lock" in dependencies
        assert [rest for name, rest in instructions if name == "USER"] == ["1000"]
        assert any("from=wheel" in rest and "--no-deps" in rest for _, rest in instructions)
        assert not any(name in ("ADD", "COPY") for name, _ in instructions)


def test_every_stage_begins_with_a_pinned_image_or_another_stage() -> None:
    names = list(stages())
    bases = {instructions[0][1].partition(" AS ")[0] for instructions in stages().values()}
    assert {base for base in bases if base not in names} == {"python:3.11-slim-bookworm"}


def test_only_the_cpu_image_takes_the_cpu_build_of_torch() -> None:
    asks = {name: any("whl/cpu" in rest for _, rest in instructions) for name, instructions in stages().items()}
    assert asks == {"wheel": False, "system": False, "cpu": True, "cuda": False}


def test_only_what_an_image_needs_is_sent_to_the_builder() -> None:
    ignored = (ROOT / "deploy/Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in ignored if line and not line.startswith("#")]
    copied = {
        source
        for instructions in stages().values()
        for name, rest in instructions
        if name == "COPY"
        for source in rest.split()[:-1]
    }
    assert rules[0] == "*" and {rule[1:] for rule in rules if rule.startswith("!")} == copied
    assert all((ROOT / source).exists() for source in copied)


def test_what_an_image_installs_is_what_the_package_depends_on(tmp_path: Path) -> None:
    (script,) = [rest for _, rest in stages()["system"] if "tomllib" in rest]
    done = subprocess.run(["sh", "-c", script.replace("run.txt", str(tmp_path / "run.txt"))], cwd=ROOT)
    assert done.returncode == 0
    buckets = [package for extra in ("s3", "gcs") for package in PROJECT["optional-dependencies"][extra]]
    assert (tmp_path / "run.txt").read_text().splitlines() == [*PROJECT["dependencies"], *buckets]
    assert all(package in LOCK for package in buckets)


# What people type -------------------------------------------------------------------------------------------------------


def simple_commands(line: str) -> Iterator[list[str]]:
    """The words of each command in a line of shell, without what follows a redirection."""
    reader = shlex.shlex(line, posix=True, punctuation_chars=True)
    reader.whitespace_split = True
    words: list[str] = []
    for word in [*reader, ";"]:
        if word and not set(word) <= set(reader.punctuation_chars):
            words.append(word)
            continue
        if words:
            yield words
        words = []


def typed() -> Iterator[tuple[str, ...]]:
    """Commands of `collegium` and `ray` in the guide's blocks and text, and those that the files run."""
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL)).replace("\\\n", " ")
    spans = [span for span in re.findall(r"`([^`\n]+)`", GUIDE) if re.match(r"collegium [a-z]|ray \S+ \S", span)]
    files = [command for file in LAUNCHED for command in shell_commands(file)]
    for line in [*blocks.splitlines(), *spans, *files, JOB["spec"]["entrypoint"]]:
        for words in simple_commands(line):
            if words[0] in ("collegium", "ray"):
                yield tuple(words)


def command_line(program: str) -> click.Command:
    if program == "ray":
        return pytest.importorskip("ray.scripts.scripts", reason="this Ray has its commands elsewhere").cli  # type: ignore[no-any-return]
    return collegium


@pytest.mark.parametrize("words", sorted(set(typed())), ids=" ".join)
def test_every_command_of_the_guide_is_one(words: tuple[str, ...]) -> None:
    program, *arguments = words
    command = command_line(program)
    while isinstance(command, click.Group):
        name, *arguments = arguments
        assert name in command.commands
        command = command.commands[name]
    command.make_context(command.name, arguments)


@pytest.mark.parametrize(
    "wanted", ["collegium submit", "collegium jobs logs", "collegium status", "ray up", "ray dashboard", "ray down"]
)
def test_the_guide_shows_the_commands_that_a_job_needs(wanted: str) -> None:
    assert any(" ".join(words).startswith(wanted) for words in typed())


def test_the_guide_names_every_file_and_the_readme_the_guide() -> None:
    for file in FILES:
        path = Path(file)
        if path.name not in ("README.md", "Dockerfile.dockerignore"):
            assert f"`{path.name}`" in GUIDE or f"`../{file}`" in GUIDE, file
    assert "deploy/README.md" in (ROOT / "README.md").read_text()


def test_everything_to_replace_is_marked_where_it_stands() -> None:
    for file in (*LAUNCHED, *KUBERNETES):
        for line in (ROOT / file).read_text().splitlines():
            if "registry.example.com" in line or re.match(r" *(region|head_ip|worker_ips|ssh_private_key):", line):
                assert "REPLACE" in line, f"{file}: {line}"


@pytest.mark.parametrize("file", ["cluster.yaml", "deploy/raycluster.yaml", "deploy/rayjob.yaml"])
def test_what_the_gpus_are_called_is_marked_wherever_it_stands(file: str) -> None:
    """In the pools, and in the variable that repeats them, in whose JSON no comment can stand: shortly before it."""
    lines = (ROOT / file).read_text().splitlines()
    named = [number for number, line in enumerate(lines) if re.search(r'accelerator_type:L40?S?\\?"', line)]
    assert len(named) == 4
    for number in named:
        near = lines[number - 7 : number] if "nodes" in lines[number] else [lines[number]]
        assert any("REPLACE" in line for line in near), lines[number]
