"""What import-linter cannot say by itself, as contracts of our own: `lint-imports`, by way of `make check`, loads them.

Its graph is read from the text of the files, so imports inside functions and those for type checkers alone count too.
"""

import graphlib
from pathlib import Path

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output

ROOT = Path(__file__).parents[1]


class NoCircle(Contract):
    """No file imports another that leads back to it, by whatever way."""

    type_name = "no_circle"

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        sorter = graphlib.TopologicalSorter(
            {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
        )
        circle: list[str] = []
        try:
            sorter.prepare()
        except graphlib.CycleError as error:
            circle = error.args[1][::-1]
        return ContractCheck(kept=not circle, metadata={"circle": circle})

    def render_broken_contract(self, check: ContractCheck) -> None:
        output.print_error("these files import each other in a circle: " + " -> ".join(check.metadata["circle"]))


class NoStranger(Contract):
    """Every .py under the folders is a module of the graph: one that is not (a folder without __init__.py, a name that
    cannot be imported) could import whatever it likes unseen."""

    type_name = "no_stranger"
    folders = fields.ListField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        known = {*graph.modules, *(f"{module}.__init__" for module in graph.modules)}
        strangers = [
            str(path.relative_to(ROOT))
            for folder in self.folders
            for path in sorted((ROOT / folder).rglob("*.py"))
            if ".".join(path.relative_to(ROOT).with_suffix("").parts) not in known
        ]
        return ContractCheck(kept=not strangers, metadata={"strangers": strangers})

    def render_broken_contract(self, check: ContractCheck) -> None:
        for path in check.metadata["strangers"]:
            output.print_error(f"{path} is not in the import graph: its folder needs an __init__.py")
