"""The auto-marker: marks news images that need no cleaning as clean, customer by customer.

The story of one document: an editor's `news_document` has an `image` and a `short_summary` and no `clean_image`. Every
JOB_INTERVAL_MINUTES a sensor looks whether any customer with `auto_mark_cleaned` on has such documents, and asks for
one run for all of them. The run (`steps`) takes the oldest AUTO_MARK_BATCH_SIZE documents of each customer, sets
`clean_image = image` unless somebody else has set it meanwhile (`store`), and reports one materialization of
`clean_images` per customer, which starts the voice generator. With `routes` a customer asks for a run now, sees its
result, and turns marking off.
"""
