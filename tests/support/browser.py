"""Opens pages in a headless Chromium."""

import contextlib
import functools
import http.server
import json
import pathlib
import re
import shutil
import subprocess
import threading

CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
# Frames of the page at each width and colour scheme. The script writes what it measures into the title.
MEASURE = '''<!doctype html><title>waiting</title><body>%s<script>
addEventListener('load', async () => {
  const frames = [...document.querySelectorAll('iframe')];
  const pictures = frames.flatMap(frame => [...frame.contentDocument.querySelectorAll('.picture img')]);
  pictures.forEach(picture => { picture.loading = 'eager'; });
  await Promise.all(pictures.map(picture => picture.decode()));
  const measured = frames.map(frame => {
    const page = frame.contentDocument, root = page.documentElement;
    page.querySelectorAll('details').forEach(part => { part.open = true; });
    const shown = [...page.querySelectorAll('.picture img')].map(picture => picture.clientWidth);
    const tiny = [...page.querySelectorAll('svg text')].filter(text => text.getBoundingClientRect().height < 7);
    return {width: +frame.width, inner: root.clientWidth, content: root.scrollWidth, tiny: tiny.length, shown,
            paper: getComputedStyle(page.body).backgroundColor, svg: page.querySelectorAll('svg').length};
  });
  document.title = JSON.stringify(measured);
});
</script>'''


def measure(page, widths, folder):
  """(measurements of the page at each width, light and dark, what was logged to the console, paths that were
  requested)."""
  shutil.copy(page, pathlib.Path(folder, 'page.html'))
  frames = ''.join(f'<iframe width="{width}" height="800" style="color-scheme: {scheme}" src="page.html"></iframe>'
                   for width in widths for scheme in ('light', 'dark'))
  pathlib.Path(folder, 'measure.html').write_text(MEASURE % frames)
  with serve(folder) as (address, requested):
    done = subprocess.run(
      [CHROMIUM, '--headless=new', '--no-sandbox', '--disable-gpu', '--enable-logging=stderr', '--no-first-run',
       '--disable-background-networking', '--virtual-time-budget=10000', f'--user-data-dir={folder}/profile',
       '--dump-dom', f'{address}/measure.html'], capture_output=True, text=True, timeout=90)
  console = [line for line in done.stderr.splitlines() if 'CONSOLE' in line]
  title = re.search('<title>(.*?)</title>', done.stdout)
  assert title, done.stderr
  return json.loads(title[1]), console, requested


@contextlib.contextmanager
def serve(folder):
  """(address, list of the paths that are requested) of a server of the files in a folder."""
  requested = []

  class Handler(http.server.SimpleHTTPRequestHandler):
    def log_request(self, *arguments):
      requested.append(self.path)

    def log_message(self, *arguments):
      pass

  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Handler, directory=folder)) as server:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
      yield f'http://127.0.0.1:{server.server_port}', requested
    finally:
      server.shutdown()
      thread.join()
