"""chart_validate.py VERSION,… FILE…: checks manifests against the strict schemas of Kubernetes versions; one line for each fault."""
import functools
import sys

import kubernetes_validate
import yaml
from kubernetes_validate import utils

# the definitions are a megabyte, and the same for every manifest
utils.schema_contents = functools.lru_cache(maxsize=None)(utils.schema_contents)


def main():
    versions, files = sys.argv[1].split(","), sys.argv[2:]
    count = bad = 0
    for path in files:
        with open(path, encoding="utf-8") as file:
            manifests = list(yaml.safe_load_all(file))
        for manifest in manifests:
            for version in versions:
                count += 1
                try:
                    kubernetes_validate.validate(manifest, version, strict=True)
                except Exception as error:  # of whatever kind: it is shown
                    bad += 1
                    where = ".".join(map(str, getattr(error, "path", [])))
                    print(f"{path}: {manifest['kind']} {manifest['metadata']['name']}, {version}: {where}: "
                          f"{getattr(error, 'message', error)}")
    print(f"{count} checks")
    return bad > 0


sys.exit(main())
