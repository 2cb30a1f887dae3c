"""What the routes of every feature share: who is asking, what is asked a second time, problems, headers, forms.

The features' routes stand on it; `gateway` puts them together.
"""
