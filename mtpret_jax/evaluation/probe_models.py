"""The models of a probe: k nearest neighbours (kNN) and linear models of frozen features, by scikit-learn.

scikit-learn is imported inside the functions, because it would add two seconds to every start.

Letters: N training images, M validation images, C feature channels, T findings.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from threadpoolctl import threadpool_limits

EXTREME = 10  # standard deviations; features are clipped there


def limit_threads() -> threadpool_limits:
  """A context with one thread for BLAS and OpenMP. Fits this small take eight times as long with two threads."""
  # The limit holds for libraries that are already loaded.
  import sklearn.linear_model
  import sklearn.neighbors  # noqa: F401
  return threadpool_limits(1)


def predict_findings(probe: str, train: Mapping[str, Any], features_NC: np.ndarray, features_MC: np.ndarray,
                     config: ConfigDict) -> np.ndarray:
  """(M, T) scores of each finding, higher where it is likelier. A finding is fitted on the training images that have a
  label for it; one that is never present, or never absent, among them scores 0."""
  scores_MT = np.zeros((len(features_MC), train['present'].shape[1]))
  # Findings that are labelled in the same images share neighbours.
  masks_NG, group_T = np.unique(train['label_mask'], axis=1, return_inverse=True)
  for group, labelled_N in enumerate(masks_NG.T):
    present_NT = train['present'][labelled_N] > 0
    fitted = [finding for finding in np.flatnonzero(group_T.ravel() == group)
              if 0 < present_NT[:, finding].sum() < len(present_NT)]
    if fitted:
      fit = fit_neighbours if probe == 'knn' else fit_logistic
      scores_MT[:, fitted] = fit(features_NC[labelled_N], present_NT[:, fitted], features_MC, config)
  return scores_MT


def fit_neighbours(features_NC: np.ndarray, targets_NT: np.ndarray, features_MC: np.ndarray,
                   config: ConfigDict) -> np.ndarray:
  """(M, T) means over the k nearest training images by cosine similarity, weighted by inverse distance."""
  from sklearn.neighbors import KNeighborsRegressor
  model = KNeighborsRegressor(min(config.neighbours, len(features_NC)), weights='distance')
  model.fit(normalise_rows(features_NC), targets_NT.astype(float))
  return model.predict(normalise_rows(features_MC))


def fit_logistic(features_NC: np.ndarray, present_NT: np.ndarray, features_MC: np.ndarray,
                 config: ConfigDict) -> np.ndarray:
  """(M, T) log-odds by a logistic regression for each finding."""
  from sklearn.linear_model import LogisticRegression
  return np.stack([LogisticRegression(C=config.penalty, max_iter=2000).fit(features_NC, present_N)
                   .decision_function(features_MC) for present_N in present_NT.T], axis=1)


def predict_value(probe: str, train: Mapping[str, Any], features_NC: np.ndarray, features_MC: np.ndarray,
                  config: ConfigDict) -> np.ndarray:
  """(M, 1) predicted values, in the unit of the value."""
  if probe == 'knn':
    return fit_neighbours(features_NC, train['value'], features_MC, config)
  from sklearn.linear_model import Ridge
  return Ridge(alpha=1 / config.penalty).fit(features_NC, train['value']).predict(features_MC).reshape(-1, 1)


def standardise(reference_NC: np.ndarray, *parts: np.ndarray) -> list[np.ndarray]:
  """All parts, by the mean and standard deviation of each channel of the reference, clipped at 10 deviations.

  A channel that is almost always 0 after ReLU may have a deviation of 1e-4 on the training images and reach 0.1 on one
  other image. Without the clip, that image's value is predicted thousands of units off.
  """
  from sklearn.preprocessing import StandardScaler
  scaler = StandardScaler().fit(reference_NC)
  return [np.clip(scaler.transform(part), -EXTREME, EXTREME) for part in parts]


def normalise_rows(features_NC: np.ndarray) -> np.ndarray:
  """Rows of length 1, so that nearest by Euclidean distance is nearest by cosine."""
  return features_NC / np.maximum(np.linalg.norm(features_NC, axis=1, keepdims=True), 1e-12)
