"""What paid calls are bought, for whom, and at what price.

`ledger` buys each answer once and writes down every use, within `budgets`. `prices` holds list prices; `spending` sums
what was spent.
"""
