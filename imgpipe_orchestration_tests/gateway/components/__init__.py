"""The components, plain and under React, in a page of another origin."""
