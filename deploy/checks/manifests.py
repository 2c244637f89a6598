"""What a schema does not know of compose.yaml, the Kubernetes manifests and the example settings: that names meet, files are
there, ports are local, images pinned, and settings are settings."""

import re
import sys
import tomllib

import yaml
from sources import ROOT, hub_settings, tested_versions, wrong_variables

DEPLOY = ROOT / "deploy"
wrong = []


def compose():
    model = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    services = model["services"]
    for name, service in services.items():
        def say(what):
            wrong.append(f"compose.yaml, {name}: {what}")

        once = service.get("restart") == "no"
        if not once and "healthcheck" not in service:
            say("has no health check")
        for other, how in service.get("depends_on", {}).items():
            if other not in services:
                say(f"depends on {other}, which is no service")
            elif how["condition"] == "service_healthy" and "healthcheck" not in services[other]:
                say(f"waits for {other} to be healthy, which has no health check")
            elif how["condition"] == "service_completed_successfully" and services[other].get("restart") != "no":
                say(f"waits for {other} to end, which is started again")
        for port in service.get("ports", []):
            if not port.startswith("127.0.0.1:"):
                say(f"port {port} is not bound to 127.0.0.1")
        if "build" in service:
            if not (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file():
                say("its Containerfile is not there")
        elif not re.fullmatch(r"[a-z.]+/[a-z0-9/-]+:v?\d+\.\d+\.\d+(-[a-z]+)?", service["image"]):
            say(f"image {service['image']} is not pinned, or its registry is not named")
        for program, version in tested_versions().items():
            if re.search(rf"/{program}:", service["image"]) and not service["image"].endswith(f":{version}"):
                say(f"image {service['image']}: the tests run with {version}")
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            there = (DEPLOY / source).exists() if source.startswith(".") else source in model["volumes"]
            if not there:
                say(f"{source} is not there")
        for variable in wrong_variables(service.get("environment", {})):
            say(f"{variable} is no setting")


def kubernetes():
    folder = DEPLOY / "kubernetes"
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    listed = set(kustomization["resources"])
    there = {file.name for file in folder.glob("*.yaml")} - {"kustomization.yaml"}
    wrong.extend(f"kubernetes: {name} is listed or there, not both" for name in listed ^ there)
    generated = {"onhand-gateway-tls"}
    for generator in kustomization["configMapGenerator"] + kustomization["secretGenerator"]:
        generated.add(generator["name"])
        for file in generator.get("files", []) + generator.get("envs", []):
            path = folder / file.split("=")[-1]
            if not path.is_file():
                wrong.append(f"kubernetes: {file} is not there")
            elif path.suffix == ".env":
                names = re.findall(r"^(\w+)=", path.read_text(), re.M)
                wrong.extend(f"kubernetes, {path.name}: {name} is no setting" for name in wrong_variables(names))
    resources = [r for name in listed & there for r in yaml.safe_load_all((folder / name).read_text())]
    workloads = [r for r in resources if r["kind"] in ("Deployment", "StatefulSet")]
    for workload in workloads:
        def say(what):
            wrong.append(f"kubernetes, {workload['kind']} {workload['metadata']['name']}: {what}")

        pod = workload["spec"]["template"]["spec"]
        if workload["spec"]["selector"]["matchLabels"] != workload["spec"]["template"]["metadata"]["labels"]:
            say("selector and labels differ")
        if pod["automountServiceAccountToken"] or not pod["securityContext"]["runAsNonRoot"]:
            say("has a token, or may run as root")
        asked = [v.get("secret", {}).get("secretName") or v.get("configMap", {}).get("name") for v in pod["volumes"]]
        for container in pod["containers"]:
            security = container["securityContext"]
            if not security["readOnlyRootFilesystem"] or security["allowPrivilegeEscalation"] \
                    or security["capabilities"]["drop"] != ["ALL"]:
                say("its container may more than it has to")
            paths = {container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
            if paths != {"/healthz", "/readyz"}:
                say("its probes ask for something else than /healthz and /readyz")
            asked += [next(iter(source.values()))["name"] for source in container["envFrom"]]
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            if mounted != {volume["name"] for volume in pod["volumes"]}:
                say("volumes and mounts differ")
            for variable in wrong_variables([variable["name"] for variable in container["env"]]):
                say(f"{variable} is no setting")
        for name in set(filter(None, asked)) - generated:
            say(f"asks for {name}, which nobody makes")
    labels = [w["spec"]["template"]["metadata"]["labels"].items() for w in workloads]
    for resource in resources:
        spec = resource.get("spec", {})
        selector = spec.get("podSelector", spec.get("selector", {}))
        selector = selector.get("matchLabels", selector) if resource["kind"] != "Service" else selector
        if not any(selector.items() <= has for has in labels):
            wrong.append(f"kubernetes, {resource['kind']} {resource['metadata']['name']}: selects no pod")


def settings():
    known = hub_settings()
    texts = {str(file.relative_to(DEPLOY)): file.read_text() for file in DEPLOY.rglob("*.toml")}
    texts |= {f"azure.md, block {i}": text for i, text in enumerate(
        re.findall(r"```toml\n(.*?)```", (DEPLOY / "azure.md").read_text(), re.S))}
    for name, text in texts.items():
        try:
            parsed = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            wrong.append(f"{name}: {error}")
            continue
        if name.endswith("hub.toml") or name.startswith("azure"):
            wrong.extend(f"{name}: {key} is no setting of the hub" for key in set(parsed) - known)
        if name.endswith("agents.toml") and not all(a["password_hash"].startswith("$argon2id$") for a in parsed["agent"]):
            wrong.append(f"{name}: an agent has no hash")


compose()
kubernetes()
settings()
print(*wrong, sep="\n")
sys.exit(bool(wrong))
