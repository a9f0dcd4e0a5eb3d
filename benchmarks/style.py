"""How a line of this library reads: tokens a line, longest line, tuple assignments, lines a function, public names.

    python benchmarks/style.py                       this library
    python benchmarks/style.py fastcore fastai timm  installed packages, counted the same way

A token is one of Python's own tokenizer; comments, line ends and indents do not count.
A line counts where a token stands.
"""
import argparse
import ast
import io
import tokenize
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd

SILENT = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER,
    tokenize.ENCODING}
WIDTH = 120 # columns


def tokens_and_lines(source:str)->tuple[int, int]:
    "How many tokens a source has, and on how many lines they stand."
    lines = set()
    count = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in SILENT:
            continue
        count += 1
        lines.update(range(token.start[0], token.end[0] + 1))
    return count, len(lines)


def functions(tree:ast.Module)->list:
    "Every function of a module, methods and inner ones too."
    return [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def body_lines(function)->int:
    "Lines of a function's body, without signature and docstring."
    first = function.body[1] if ast.get_docstring(function) and len(function.body) > 1 else function.body[0]
    return function.end_lineno - first.lineno + 1


def is_tuple_assignment(node)->bool:
    "Whether several names get values written side by side: `a, b = 1, 2`."
    return isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple)


def is_method(node)->bool:
    "Whether a function is patched into a class."
    return any('patch' in ast.unparse(decorator) for decorator in getattr(node, 'decorator_list', []))


def public_names(tree:ast.Module)->list[str]:
    "What a module offers: its functions, classes and constants without an underscore."
    defined = [node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    names = [node.name for node in defined if not is_method(node)]
    targets = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    names += [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
    return sorted({name for name in names if not name.startswith('_')})


def most_arguments(tree:ast.Module)->int:
    "Arguments of the public function that has most."
    def count(f):
        return len(f.args.posonlyargs) + len(f.args.args) + len(f.args.kwonlyargs)
    return max((count(f) for f in functions(tree) if not f.name.startswith('_')), default=0)


def measure(path:Path)->dict:
    "The counts of one module."
    source = path.read_text('utf-8')
    tree = ast.parse(source)
    tokens, lines = tokens_and_lines(source)
    sizes = [body_lines(f) for f in functions(tree)] or [0]
    code = source[max(source.find('# %% ../'), 0):].splitlines() # nbdev itself writes what stands above the first cell
    return dict(
        tokens=tokens, lines=lines, tokens_a_line=tokens/max(lines, 1), longest=max(map(len, code), default=0),
        too_long=sum(len(line) > WIDTH for line in code), tuples=sum(map(is_tuple_assignment, ast.walk(tree))),
        function_median=float(np.median(sizes)), function_p90=float(np.percentile(sizes, 90)),
        public=len(public_names(tree)), arguments=most_arguments(tree))


def modules(package:str)->dict[str, Path]:
    "Every module of an installed package, without generated indexes and empty files."
    folder = Path(find_spec(package).submodule_search_locations[0])
    files = sorted(p for p in folder.rglob('*.py') if not p.name.startswith('_'))
    return {'.'.join(p.relative_to(folder).with_suffix('').parts): p for p in files}


def style_table(package:str='boneage')->pd.DataFrame:
    "One row a module, and one for all of them."
    df = pd.DataFrame({name: measure(path) for name, path in modules(package).items()}).T
    total = df.sum().to_dict() | df[['longest', 'arguments']].max().to_dict()
    total |= df[['function_median', 'function_p90']].median().to_dict()
    df.loc['in all'] = total | dict(tokens_a_line=total['tokens']/total['lines'])
    df['tuples_per_1000'] = 1000*df.tuples/df.lines
    return df.drop(columns=['tokens', 'tuples'])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('packages', nargs='*', default=['boneage'])
    for package in parser.parse_args().packages:
        table = style_table(package)
        print(f'\n{package}')
        print((table if package == 'boneage' else table.tail(1)).round(1).to_string())


if __name__ == '__main__':
    main()
