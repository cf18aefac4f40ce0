def page(story, language): return ""
def fragment(story, language): return ""
