"""From a trained model to answers: indexes on disk, retrieval for known and new users, export of the user tower."""
