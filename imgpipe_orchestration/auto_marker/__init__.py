"""The auto-marker: approves news images that need no cleaning, customer by customer.

Every JOB_INTERVAL_MINUTES a sensor checks whether any customer with `auto_mark_cleaned` on has `news_document`s with an
`image` and a `short_summary` but no `clean_image`, and asks for one run for all of them. The run (`runs`) takes each
customer's oldest AUTO_MARK_BATCH_SIZE documents, sets `clean_image = image` unless somebody changed the document
meanwhile (`store`), and materializes `clean_images` for that customer, which starts the voice generator. With `routes`
a customer asks for a run, sees its result, and turns marking off.
"""
