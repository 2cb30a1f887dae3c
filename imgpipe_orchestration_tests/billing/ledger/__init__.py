"""The journal of paid calls: buying, buyers that die, budgets and pauses."""
