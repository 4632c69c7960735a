"""Makes helm/sidrail/values.schema.json and helm/sidrail/files/restart-options.json. The schema: the chart's own values from chart_values.json, the daemons' options from their tables.

    sidrail-DAEMON --print-options ─▶ rows ─▶ tree of paths ─▶ definitions.DAEMON_config

Each option becomes a property with its type, range and sentence; what is no option is refused. JSON Schema draft 7, which
Helm 3 and Helm 4 both read."""
import json
import pathlib
import re

BASE = pathlib.Path(__file__).with_name("chart_values.json")

#: Where a scalar may stand in place of an object (`plain` in the tables).
PLAIN = {"proxy": {"upstreams[].discovery.static"}, "broker": {"listeners", "shards"}}

ENVIRONMENT = {"$ref": "#/definitions/environment"}  # ${NAME} in place of a value


def number_or_none(text):
    return int(text) if re.fullmatch(r"-?\d+", text) else None


def bounds(text):
    """Smallest and largest of "LOW..HIGH UNIT" where both are numbers, and the words before it."""
    *words, last = text.split("|")
    found = re.fullmatch(r"(\d+)\.\.(\d+)( \w+)?", last)
    return words, (int(found.group(1)), int(found.group(2))) if found else None


def one_of(*schemas):
    return schemas[0] if len(schemas) == 1 else {"anyOf": list(schemas)}


def words_schema(words):
    """An enum; a word that YAML reads as a number or a truth value may come as that."""
    values = list(words)
    for word in words:
        if word in ("true", "false"):
            values.append(word == "true")
        elif re.fullmatch(r"\d+(\.\d+)?", word):
            values.append(float(word) if "." in word else int(word))
    return {"enum": values}


def amount_schema(words, units):
    word = "".join(f"|{re.escape(word)}" for word in words if not word.isdigit())
    optional = "?" if "" in units else ""
    unit = "|".join(unit for unit in units if unit)
    pattern = f"^([0-9]+({unit}){optional}|0{word})$"
    return one_of({"type": "string", "pattern": pattern}, {"type": "integer", "minimum": 0} if optional else {"enum": [0]},
                  ENVIRONMENT)


def scalar_schema(kind, allowed):
    words, limits = bounds(allowed)
    if kind == "bool":
        return one_of({"type": "boolean"}, ENVIRONMENT)
    if kind == "enum":
        return one_of(words_schema(allowed.split("|")), ENVIRONMENT)
    if kind in ("integer", "decimal"):
        number = {"type": "integer" if kind == "integer" else "number"}
        if limits:
            number["minimum"] = 0 if "0" in words else limits[0]
            number["maximum"] = limits[1]
        others = [{"enum": [word]} for word in words if not word.isdigit()]
        return one_of(number, *others, ENVIRONMENT)
    if kind == "duration":
        return amount_schema(words + (["auto"] if allowed == "auto" else []), ["ms", "s", "m", "h"])
    if kind == "size":
        return amount_schema(words, ["", "KiB", "MiB", "GiB"])
    if kind == "mode":
        return {"type": "string", "pattern": "^0?[0-7]{3}$"}
    text = {"type": ["string", "integer"]}
    if kind == "text" and limits and limits[0] > 0:
        text["minLength"] = limits[0]
    if kind == "text" and limits:
        text["maxLength"] = limits[1]
    return text


class Node:
    def __init__(self):
        self.row = None
        self.children = {}

    def schema(self, path, plain):
        kind, allowed, sentence = self.row if self.row else ("group", "", "")
        if kind in ("group", "object"):
            schema = self.object(path, plain)
        elif kind == "list of objects":
            item = self.object(path, plain)
            schema = {"type": "array", "items": one_of(item, {"type": "string"}) if path in plain else item}
        elif kind.startswith("list of "):
            schema = {"type": "array", "items": {"type": ["string", "integer"]}}
        elif kind == "map of text":
            schema = {"type": "object", "additionalProperties": {"type": "string"}}
        else:
            schema = scalar_schema(kind, allowed)
        limits = bounds(allowed.removesuffix(" items"))[1] if kind.startswith("list of ") else None
        if limits:
            schema["minItems"], schema["maxItems"] = limits
        return {"description": sentence, **schema} if sentence else schema

    def object(self, path, plain):
        schema = {"type": "object", "additionalProperties": False, "properties": {}}
        prefix = f"{path}[]." if self.row and self.row[0] == "list of objects" else f"{path}." if path else ""
        for name, child in self.children.items():
            schema["properties"][name] = child.schema(prefix + name, plain)
        required = [name for name, child in self.children.items() if getattr(child, "required", False)]
        if required and path:  # the chart's own values stand below what a user gives at the top
            schema["required"] = required
        return schema


def config_schema(daemon, rows):
    """Of --print-options' rows; see tests/lint/write_docs.py."""
    root = Node()
    for path, kind, allowed, default, _unit, _reload, sentence in rows:
        node = root
        for name in re.split(r"\[\]\.|\.", path):
            node = node.children.setdefault(name, Node())
        node.row = (kind.strip(), allowed.strip(), sentence.strip())
        node.required = default.strip() == "required"
    schema = root.schema("", PLAIN[daemon])
    return {"description": f"The configuration of sidrail-{daemon}, see docs/options-{daemon}.md.", **schema}


def restart_options(tables):
    """The text of files/restart-options.json: paths of what only new pods change, of `tables` as below."""
    paths = {daemon: [] for daemon in tables}
    for daemon, rows in tables.items():
        for path, _kind, _allowed, _default, _unit, reload, _sentence in rows:
            whole = path.split("[]")[0]
            if reload.strip() == "restart" and whole not in paths[daemon]:
                paths[daemon].append(whole)
    return json.dumps(paths, indent=1) + "\n"


def page(tables):
    """The text of the schema, of `tables` (daemon: rows)."""
    schema = json.loads(BASE.read_text())
    for daemon, rows in tables.items():
        schema["definitions"][f"{daemon}_config"] = config_schema(daemon, rows)
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"
