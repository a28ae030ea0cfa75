"""The comments of the fields in configs/, for `--help` and for docs/configs.md."""

import ast
import inspect
import io
import textwrap
import tokenize
from collections.abc import Callable, Iterator, Mapping


def read_comments(function: Callable) -> dict[str, str]:
  """{field: comment} of the dict that `function` returns. A comment stands behind a field or on the lines above it."""
  source = textwrap.dedent(inspect.getsource(function))
  lines = {token.start[0]: (token.string.lstrip('# '), not token.line[:token.start[1]].strip())
           for token in tokenize.generate_tokens(io.StringIO(source).readline) if token.type == tokenize.COMMENT}
  returned = next(node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Return))
  return dict(walk_fields(returned, lines, ''))


def walk_fields(node: ast.expr | None, lines: Mapping[int, tuple[str, bool]], prefix: str
                ) -> Iterator[tuple[str, str]]:
  if is_call(node, 'ConfigDict'):
    node = node.args[0]  # type: ignore[union-attr]
  if not is_call(node, 'dict'):
    return
  for field in node.keywords:  # type: ignore[union-attr]
    if is_call(field.value, 'dict'):
      yield from walk_fields(field.value, lines, f'{prefix}{field.arg}.')
    elif field.value.end_lineno in lines:
      yield f'{prefix}{field.arg}', lines[field.value.end_lineno][0]
    else:
      above: list[str] = []
      line = field.lineno - 1
      while line in lines and lines[line][1]:
        above.insert(0, lines[line][0])
        line -= 1
      if above:
        yield f'{prefix}{field.arg}', ' '.join(above)


def is_call(node: ast.AST | None, name: str) -> bool:
  return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name
