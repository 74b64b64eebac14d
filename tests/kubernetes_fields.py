"""The fields of Kubernetes objects that deploy/ may use, as JSON schemas: what is not named here is refused.

Written from the documentation: KubeRay's API reference of `ray.io/v1` (RayCluster, RayJob), versions 1.6 and 1.7, and that of
Kubernetes 1.28 for the rest. Only what a Collegium cluster has a use for; an API server knows far more.
"""

from typing import Any

Schema = dict[str, Any]

text: Schema = {"type": "string", "minLength": 1}
flag: Schema = {"type": "boolean"}
count: Schema = {"type": "integer", "minimum": 0}
port: Schema = {"type": "integer", "minimum": 1, "maximum": 65535}
named_port: Schema = {"anyOf": [port, text]}
mapping: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
name: Schema = {"type": "string", "pattern": "^[a-z]([-a-z0-9]{0,45}[a-z0-9])?$"}
quantity: Schema = {"anyOf": [count, {"type": "string", "pattern": "^[0-9.]+(m|Ki|Mi|Gi|Ti)?$"}]}
quantities: Schema = {"type": "object", "additionalProperties": quantity}


def one_of(*values: str) -> Schema:
    return {"enum": list(values)}


def some(items: Schema) -> Schema:
    return {"type": "array", "items": items, "minItems": 1}


def only(required: str = "", /, **fields: Schema) -> Schema:
    """An object with these fields and no others; `required` are the names of those that it must have."""
    return {"type": "object", "properties": fields, "required": required.split(), "additionalProperties": False}


def kind(kind: str, version: str, **fields: Schema) -> Schema:
    metadata = only("name namespace", name=name, namespace=name, labels=mapping, annotations=mapping)
    needed = " ".join(["apiVersion kind metadata", *fields])
    return only(needed, apiVersion=one_of(version), kind=one_of(kind), metadata=metadata, **fields)


confined = only(
    "allowPrivilegeEscalation capabilities",
    allowPrivilegeEscalation=flag,
    readOnlyRootFilesystem=flag,
    capabilities=only("drop", drop=some(one_of("ALL"))),
)
user = only(
    "runAsNonRoot runAsUser seccompProfile",
    runAsNonRoot=flag,
    runAsUser=count,
    fsGroup=count,
    seccompProfile=only("type", type=one_of("RuntimeDefault")),
)
probe = only(
    "httpGet",
    httpGet=only("path port", path=text, port=named_port),
    periodSeconds=count,
    timeoutSeconds=count,
    failureThreshold=count,
)
resources = only("requests", requests=quantities, limits=quantities)
container = only(
    "name image resources securityContext",
    name=name,
    image=text,
    workingDir=text,
    command=some(text),
    args=some(text),
    env=some(only("name value", name=text, value=text)),
    ports=some(only("containerPort", name=name, containerPort=port)),
    startupProbe=probe,
    readinessProbe=probe,
    livenessProbe=probe,
    resources=resources,
    securityContext=confined,
    volumeMounts=some(only("name mountPath", name=name, mountPath=text, readOnly=flag)),
)
volume = only(
    "name",
    name=name,
    emptyDir=only(medium=one_of("Memory"), sizeLimit=quantity),
    configMap=only("name", name=name),
    persistentVolumeClaim=only("claimName", claimName=name),
)
pod = only(
    "containers serviceAccountName securityContext",
    serviceAccountName=name,
    automountServiceAccountToken=flag,
    securityContext=user,
    nodeSelector=mapping,
    tolerations=some(only("key operator", key=text, operator=one_of("Exists"), effect=one_of("NoSchedule"))),
    containers=some(container),
    volumes=some(volume),
)
template = only("metadata spec", metadata=only("labels", labels=mapping), spec=pod)
selector = only(matchLabels=mapping)

ray_cluster = only(
    "rayVersion authOptions headGroupSpec workerGroupSpecs",
    rayVersion=text,
    authOptions=only("mode", mode=one_of("token"), secretName=name),
    enableInTreeAutoscaling=flag,
    autoscalerOptions=only(
        version=one_of("v1", "v2"),
        upscalingMode=one_of("Default", "Aggressive", "Conservative"),
        idleTimeoutSeconds=count,
        resources=resources,
        securityContext=confined,
    ),
    headGroupSpec=only(
        "rayStartParams template", serviceType=one_of("ClusterIP"), rayStartParams=mapping, template=template
    ),
    workerGroupSpecs=some(
        only(
            "groupName minReplicas maxReplicas rayStartParams template",
            groupName=name,
            replicas=count,
            minReplicas=count,
            maxReplicas=count,
            idleTimeoutSeconds=count,
            rayStartParams=mapping,
            template=template,
        )
    ),
)
ray_job = only(
    "entrypoint rayClusterSpec",
    entrypoint=text,
    backoffLimit=count,
    shutdownAfterJobFinishes=flag,
    ttlSecondsAfterFinished=count,
    rayClusterSpec=ray_cluster,
)
deployment = only(
    "replicas selector template",
    replicas=count,
    strategy=only("type", type=one_of("Recreate", "RollingUpdate")),
    selector=selector,
    template=template,
)
service = only(
    "selector ports",
    type=one_of("ClusterIP"),
    selector=mapping,
    ports=some(only("port", name=name, port=port, targetPort=named_port)),
)
claim = only(
    "accessModes resources",
    accessModes=some(one_of("ReadWriteOnce", "ReadWriteMany")),
    resources=only("requests", requests=only("storage", storage=quantity)),
)
peer = only(podSelector=selector, namespaceSelector=selector)
network_policy = only(
    "podSelector policyTypes ingress",
    podSelector=selector,
    policyTypes=some(one_of("Ingress", "Egress")),
    ingress=some(only("from", **{"from": some(peer), "ports": some(only("port", protocol=one_of("TCP"), port=port))})),
)

KINDS: dict[str, Schema] = {
    "RayCluster": kind("RayCluster", "ray.io/v1", spec=ray_cluster),
    "RayJob": kind("RayJob", "ray.io/v1", spec=ray_job),
    "Deployment": kind("Deployment", "apps/v1", spec=deployment),
    "Service": kind("Service", "v1", spec=service),
    "PersistentVolumeClaim": kind("PersistentVolumeClaim", "v1", spec=claim),
    "NetworkPolicy": kind("NetworkPolicy", "networking.k8s.io/v1", spec=network_policy),
    "ServiceAccount": kind("ServiceAccount", "v1"),
}
