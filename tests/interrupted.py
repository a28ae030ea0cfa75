"""A run that is interrupted."""

from mtpret_jax import train


def stop_at(monkeypatch, step):
  """The run is interrupted when it has drawn `step` batches and is about to take the next."""
  place, drawn = train.place_batch, iter(range(10 ** 6))

  def place_or_stop(batch, mesh):
    if next(drawn) == step:
      raise KeyboardInterrupt
    return place(batch, mesh)
  monkeypatch.setattr(train, 'place_batch', place_or_stop)
