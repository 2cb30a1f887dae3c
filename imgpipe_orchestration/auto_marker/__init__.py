"""The auto-marker: news images that need no cleaning are marked as clean, customer by customer.

The story of one document: an editor's `news_document` has an `image` and a `short_summary` and no `clean_image`. Every
JOB_INTERVAL_MINUTES a sensor asks whether any customer with `auto_mark_cleaned` on has such documents, and for one run
that covers all who have. The run (`steps`) takes the oldest AUTO_MARK_BATCH_SIZE of each customer, sets
`clean_image = image` where nobody was quicker (`store`), and reports one materialization of `clean_images` per
customer, which is what the voice generator listens to. `routes` is where a customer asks for it now, sees what became
of it, and turns it off.
"""
