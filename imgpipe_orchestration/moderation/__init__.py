"""Nothing unsafe in public: verdicts of models, what waits for a person, and what people decided.

What strangers send is judged once, through the queue `moderation` (`judging`). `verdicts` has the rows, and holds an
image back or shows it. With MODERATION=hold an image is held from its first row on, so that a crash between any two
steps leaves it held. What people decide, and what the public reports, is in
`operations.review`.
"""
