#!/usr/bin/env python3
"""Renders small templates with transformers' own Jinja environment.

    python tests/goldens/make_jinja_vectors.py     # needs transformers and jinja2; versions go into the file

Writes tests/data/chat/jinja.json: the variables, and pairs of a template and its text (null: an error).
"""
import json
import pathlib

import jinja2
import transformers
from transformers.utils.chat_template_utils import _compile_jinja_template

VARIABLES = {
    "n": 3, "zero": 0, "neg": -7, "big": 4000000000, "x": 2.5, "whole": 2.0, "small": 1e-7, "large": 1e20, "t": True,
    "f": False, "nil": None, "s": "  Hello, wörld!\n ", "e": "", "a": "one two  three", "u": "日本語 ✓ é",
    "quote": "it's \"so\" \\ \n\t\u0001</b>&", "list": [1, 2, 3, 4], "words": ["b", "a", "c"], "none_list": [],
    "d": {"k": "v", "items": 5, "n": {"deep": [1, {"x": "y"}]}, "zz": None}, "empty": {},
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"},
                 {"role": "assistant", "content": "Hello <b>"}, {"role": "user", "content": "Bye", "extra": 1}],
}

EXPRESSIONS = """
n + 1 @ n - 1 @ n * 2 @ n / 2 @ n // 2 @ n % 2 @ neg // 2 @ neg % 3 @ neg / 2 @ -n @ +n @ - n + 1 @ 7 % -3 @ -7 // -2 @ 1 + 2 * 3 @ (1 + 2) * 3 @ 10 - 2 - 3
x + 1 @ x * 2 @ whole @ whole + 1 @ 1 / 4 @ 1e3 @ 1.5 @ 0.1 + 0.2 @ small @ large @ 2 / 3 @ 10 / 5 @ big * 10 @ x == 2.5 @ 1 == 1.0 @ 1 == true @ 0 == false
n > 2 @ n >= 3 @ n < 3 @ n <= 3 @ n != 3 @ 1 < n < 5 @ 1 < n > 5 @ 'a' < 'b' @ 'b' <= 'a' @ 'é' > 'z' @ n < 'a' @ none < 1 @ nil == none @ nil != 0
t and f @ t or f @ not t @ not f and t @ n and e @ e or 'x' @ zero or e or nil @ n and 'y' and 0 @ not not n @ not n == 3
'a' ~ 1 ~ none ~ true ~ 2.0 @ 'a' + 'b' @ 'a' * 3 @ 3 * 'ab' @ 'a' ~ missing ~ 'b' @ 'a' + 1 @ 1 + 'a' @ [1] + [2] @ (1, 2) + (3,) @ [0] * 3 @ 'x' * -1
'a' in 'abc' @ 'd' in 'abc' @ 'd' not in 'abc' @ 1 in list @ 9 in list @ 9 not in list @ 'k' in d @ 'q' in d @ '' in 'x' @ 1 in 'abc' @ 'x' in missing @ not 1 in list
'y' if t else 'n' @ 'y' if f else 'n' @ 'y' if f @ ('y' if f) is undefined @ 1 if f else 2 if f else 3 @ 'a' if t else 'b' ~ 'c'
list[0] @ list[-1] @ list[9] is defined @ list[9] @ list['x'] @ d['k'] @ d.k @ d['n']['deep'][1].x @ d.n.deep[0] @ d.missing @ d.missing.more @ d.zz @ d.zz is none @ a[0] @ u[1] @ u[-1] @ s[99] is undefined @ d.get('k') @ d.get('q') @ d.get('q', 7) @ d['items'] @ d.k[0]
list[1:] @ list[:2] @ list[1:3] @ list[::-1] @ list[::2] @ list[-2:] @ list[:-1] @ list[5:] @ list[3:1] @ list[3:0:-1] @ list[-1:-3:-1] @ a[::-1] @ u[1:3] @ u[::2] @ a[:3] @ a[-5:] @ a[1:-1] @ none_list[1:] @ list[none:2] @ list[:100] @ list[-100:2] @ (1,2,3)[1:]
messages[0].role @ messages[0]['content'] @ messages[1:][0].content @ messages[::-1][0].role @ messages[-1]['extra'] @ messages|length
s.strip() @ s.lstrip() @ s.rstrip() @ a.split() @ a.split(' ') @ a.split('t') @ a.split(' ', 1) @ a.split(none, 1) @ a.split()[-1] @ 'a,b,,c'.split(',') @ e.split() @ e.split(',') @ s.strip().split(',')[0] @ ' a  b '.split(none, 1) @ a.split('zz') @ 'a</think>b</think>c'.split('</think>')[-1] @ a.split(sep=' ')
a.startswith('one') @ a.startswith(('x', 'one')) @ a.endswith('three') @ a.endswith(('x',)) @ a.startswith('') @ a.upper() @ 'ABC dE'.lower() @ 'hello wORLD, it\\'s a-b'.title() @ 'hELLO wORLD'.capitalize() @ a.replace('o', '0') @ a.replace('o', '0', 1) @ 'aXbXc'.replace('X', '') @ 'ab'.replace('', '-') @ u.replace('本', '--')
'xxhixx'.strip('x') @ 'xyhiyx'.lstrip('xy') @ 'hi\\n\\n'.rstrip('\\n') @ u.strip('✓é ') @ a.find('two') @ u.find('✓') @ a.find('zz') @ a.rfind('e') @ a.count('e') @ '-'.join(words) @ ', '.join(['x']) @ 'abc'.removeprefix('a') @ 'abc'.removesuffix('bc') @ '12'.isdigit() @ '1a'.isdigit() @ ' '.isspace() @ 'a\\nb\\r\\nc'.splitlines() @ 'a\\nb\\n'.splitlines(true)
d.items()|list @ d.keys()|list @ d.values()|list @ empty.items()|length @ d.keys()|length @ empty.items()|list
s|trim @ e|trim @ 'xax'|trim('x') @ n|trim @ none|trim @ a|length @ u|length @ list|length @ d|length @ list|count @ missing|length @ n|length
words|join @ words|join(', ') @ list|join('-') @ messages|join(',', attribute='role') @ messages|map(attribute='role')|join(' ') @ a|join('.') @ none_list|join('x') @ u|join('|')
d|tojson @ list|tojson @ quote|tojson @ u|tojson @ nil|tojson @ t|tojson @ x|tojson @ whole|tojson @ large|tojson @ small|tojson @ empty|tojson @ none_list|tojson @ [[], {}]|tojson @ messages[0]|tojson @ (1, 'a')|tojson @ missing|tojson @ {1: 2, none: 3, true: 4}|tojson
d|tojson(indent=2) @ list|tojson(indent=4) @ none_list|tojson(indent=2) @ empty|tojson(indent=2) @ u|tojson(ensure_ascii=true) @ '😀'|tojson(ensure_ascii=true) @ {'b': 1, 'a': {'d': 1, 'c': 2}}|tojson(sort_keys=true) @ d|tojson(separators=(',', ':')) @ list|tojson(indent=0) @ [[1, [2]], {'a': []}]|tojson(indent=1)
missing|default('x') @ e|default('x') @ e|default('x', true) @ nil|default('x') @ nil|default('x', true) @ d.q|default(7) @ missing|d('y') @ missing|default @ zero|default(5, boolean=true) @ missing|default(default_value='z')
list|first @ list|last @ none_list|first is undefined @ none_list|last @ a|first @ u|last @ d|first @ d|last @ a|upper @ 'ABC'|lower @ 'some title-case (x) [y'|title @ 'hELLO'|capitalize @ n|upper @ a|replace('one', '1') @ n|replace('3', '4') @ 'aaa'|replace('a', 'b', 2)
a|list @ d|list @ missing|list @ '3'|int @ '3.7'|int @ 'x'|int @ 'x'|int(9) @ 2.9|int @ -2.9|int @ nil|int @ true|int @ ' 12 '|int @ '1e3'|int @ '2.5'|float @ n|float @ 'x'|float @ 'x'|float(1.5) @ -3|abs @ (-3)|abs @ 2.5|abs @ list|reverse|list @ a|reverse @ u|reverse @ n|string @ nil|string @ n|string ~ 'x' @ d|items|list @ missing|items|list
words|map('upper')|list @ [' a ', 'b ']|map('trim')|join('|') @ list|map('string')|join @ messages|map(attribute='extra', default=0)|list @ messages|selectattr('role', 'equalto', 'user')|list|length @ messages|selectattr('role', 'equalto', 'user')|map(attribute='content')|join('/') @ messages|selectattr('extra', 'defined')|list|length @ messages|rejectattr('role', '==', 'user')|map(attribute='role')|list @ list|select('odd')|list @ list|reject('odd')|list @ list|select('>', 2)|list @ [0, 1, '']|select|list @ messages|selectattr('extra')|list|length @ messages|selectattr('role', 'in', ['system', 'assistant'])|map(attribute='role')|list @ (messages|selectattr('role', 'equalto', 'user')|list)[-1].content @ (messages|selectattr('role', 'equalto', 'nobody')|first) is undefined
n is defined @ missing is defined @ missing is not defined @ missing is undefined @ d.q is defined @ d.k is defined and d.k @ nil is none @ nil is not none @ n is none @ missing is none @ s is string @ n is string @ n is number @ t is number @ x is number @ s is number @ n is integer @ t is integer @ x is integer @ x is float @ n is float @ t is boolean @ n is boolean @ t is true @ n is true @ f is false @ zero is false
d is mapping @ list is mapping @ list is iterable @ s is iterable @ n is iterable @ d is iterable @ missing is iterable @ list is sequence @ s is sequence @ d is sequence @ n is sequence @ (1,2) is sequence @ n is odd @ n is even @ neg is odd @ n is divisibleby 3 @ n is divisibleby(2) @ n is equalto 3 @ n is eq(4) @ n is ne 4 @ n is lt 4 @ n is gt 4 @ n is in [1, 3] @ n is in list @ 'a' is in 'abc' @ range is callable @ n is callable @ list|length is odd @ not n is odd @ n is not odd
range(3)|list @ range(1, 4)|list @ range(10, 0, -3)|list @ range(0)|list @ range(5)|length @ range(2, 8) @ dict(a=1, b='x') @ dict(a=1).a @ namespace(a=1).a @ namespace(a=1).b is defined
[1, 'a', none, true, 2.0, [], {}] @ {'a': 1, 'b': [2]} @ (1,) @ () @ (1, 2) @ {'it\\'s': 'a"b'} @ ['a\\nb'] @ ['it\\'s "x"'] @ {1: 2} @ 1, 2 @ [1, 2,] @ {'a': 1,} @ [true, false] @ {'a': 1} == {'a': 1.0} @ [1, 2] == [1, 2] @ [1] == (1,) @ d == d @ '1' == 1 @ {'a': 1, 'a': 2}
"a" "b" @ '\\x41\\u00e9\\U0001F600' @ 'a\\tb' @ '\\\\n' @ '\\q' @ "it's" @ '}}' @ "%}" @ '{{ x }}' @ {'a': {'b': 1}}['a']['b'] @ {'a': {'b': 1}}.a.b @ missing @ missing ~ '' @ missing.x @ missing() @ n() @ missing + 1 @ d.get|length
true and none is none @ none is none and true @ 1 if missing is defined else 2 @ 'x' if n is odd else 'y' @ (n) @ ((n + 1) * 2) @ n|string|length @ -1|abs @ 2 - 1|abs @ 'a'|upper ~ 'b' @ 'a' ~ 'b'|upper @ n == 3 and a|upper @ True @ False @ None @ not missing @ list[n - 1] @ list[list[0]] @ d['k' ~ ''] @ messages[n].content @ loop is defined @ x|string @ 1_000
"""

STATEMENTS = [
    "{% for i in list %}{{ i }}{% endfor %}", "{% for i in none_list %}{{ i }}{% else %}none{% endfor %}",
    "{% for i in missing %}{{ i }}{% else %}none{% endfor %}", "{% for i in n %}{{ i }}{% endfor %}",
    "{% for i in list %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}"
    "{{ loop.last }}{{ loop.length }};{% endfor %}",
    "{% for i in list %}{{ loop.previtem }}<{{ i }}>{{ loop.nextitem }} {% endfor %}",
    "{% for i in list %}{{ loop.previtem is defined }}{{ loop.nextitem is defined }} {% endfor %}",
    "{% for i in list if i is odd %}{{ loop.index }}/{{ loop.length }}:{{ i }} {% else %}no{% endfor %}",
    "{% for i in list if i > 9 %}{{ i }}{% else %}no{% endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "{% for k, v in d|items %}{{ k }};{% endfor %}",
    "{% for k in d %}{{ k }};{% endfor %}", "{% for (a, b) in [(1, 2), (3, 4)] %}{{ a + b }} {% endfor %}",
    "{% for a, b in [(1, 2, 3)] %}{{ a }}{% endfor %}", "{% for c in 'héy' %}{{ c }}.{% endfor %}",
    "{% for i in list %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "{% for i in list %}{% for j in words %}{{ loop.index }}{{ j }}{% if j == 'a' %}{% break %}{% endif %}{% endfor %}"
    "{{ loop.index }};{% endfor %}",
    "{% set y = 1 %}{% for i in list %}{% set y = i %}{{ y }}{% endfor %}{{ y }}",
    "{% set y = 1 %}{% for i in list %}{{ y }}{% set y = y + i %}{{ y }};{% endfor %}{{ y }}",
    "{% set ns = namespace(y=1) %}{% for i in list %}{% set ns.y = ns.y + i %}{% endfor %}{{ ns.y }}",
    "{% set ns = namespace() %}{% set ns.z = 'q' %}{{ ns.z }}{{ ns.w is defined }}", "{% set d.k = 1 %}{{ d.k }}",
    "{% set q.k = 1 %}", "{% if t %}{% set y = 5 %}{% endif %}{{ y }}", "{% if f %}{% set y = 5 %}{% endif %}{{ y }}",
    "{% if n == 1 %}a{% elif n == 3 %}b{% elif n == 3 %}c{% else %}d{% endif %}", "{% if e %}a{% else %}b{% endif %}",
    "{% if none_list %}a{% elif empty %}b{% elif zero %}c{% elif nil %}d{% elif missing %}e{% else %}f{% endif %}",
    "{% if messages|selectattr('role', 'equalto', 'x') %}a{% else %}b{% endif %}",
    "{% if not t or n in list and 'k' in d %}a{% endif %}", "{% set a, b = 1, 2 %}{{ a }}{{ b }}", "{% set y = 1, 2 %}{{ y }}",
    "{% set y %}  a{{ n }} {% endset %}[{{ y }}]", "{% set y | trim | upper %}  abc {% endset %}[{{ y }}]",
    "{% set y %}{% set z = 1 %}{{ z }}{% endset %}{{ y }}{{ z is defined }}", "{% set list = 5 %}{{ list }}",
    "{% macro m(a, b='x') %}[{{ a }}{{ b }}]{% endmacro %}{{ m(1) }}{{ m(1, 2) }}{{ m(b=3, a=4) }}{{ m() }}",
    "{% macro m(a) %}{{ a }}{{ n }}{{ q }}{% endmacro %}{% set q = 7 %}{{ m(1) }}",
    "{% macro m(a) %}{% if a > 0 %}{{ a }}{{ m(a - 1) }}{% endif %}{% endmacro %}{{ m(3) }}",
    "{% macro m(a) %}{% set n = a %}{{ n }}{% endmacro %}{{ m(9) }}{{ n }}",
    "{% macro m(a) %}{{ i is defined }}{% endmacro %}{% for i in list %}{{ m(i) }}{% endfor %}",
    "{% macro m(a) %}x{% endmacro %}{{ m(1, 2) }}", "{% macro m(a) %}x{% endmacro %}{{ m(c=2) }}",
    "{% macro m(a) %} x {% endmacro %}[{{ m(1)|trim }}]{{ m is callable }}", "{% macro m(a, b=a) %}{{ b }}{% endmacro %}{{ m(3) }}",
    "a{# comment #}b", "a {#- comment -#} b", "a\n{# c #}\nb", "a\n  {# c #}  \nb", "{#- x #}", "a{# {{ n }} #}b\n",
    "  {% if t %}\n  x\n  {% endif %}\n  y\n", "  {%+ if t %}\n  x\n  {%+ endif %}\n", "  {%- if t -%}\n  x\n  {%- endif -%}\n  y",
    "a\n\n{%- if t %}\n\nb{% endif %}\n\n\nc\n\n", "{{ n }}\n{{ n }}\n", "{{ n -}}  \n x", "x  {{- n }}", "a  {{ n }}  b", "{{- n -}}",
    "x {% if t %} y {% endif %} z", "\t{% if t %}\tx\n\t{% endif %}\n", "a {% set y = 1 %}\n b", "{% set y = 1 %}  \nb",
    "{% if t +%}\nx{% endif %}", "{% for i in list %}\n{{ i }}\n{% endfor %}\n", "{% for i in list -%}\n{{ i }}\n{%- endfor %}\nend\n\n",
    "a\r\nb\r{% if t %}\r\nx{% endif %}\r\n", "{% if t %}\u00a0{%- endif %}|", "\u00a0 {% if t %}x{% endif %}", "\n", "\n\n", "", "{{ '' }}",
    "{ {{ n }} }", "{}", "{ % x % }", "100% {{ n }}%", "{{ {'a': 1}['a'] }}}", "{{ n }", "{% if t %}", "{% endif %}", "{% for %}",
    "{{ }}", "{{ n n }}", "{{ n + }}", "{{ (n }}", "{{ [1, 2 }}", "{% if %}{% endif %}", "{{ 'a }}", "{# x", "{{ n", "{% set %}", "{{ a.b.c }}",
    "{{ raise_exception('stop') }}", "{% if f %}{{ raise_exception('stop') }}{% endif %}ok", "{{ s|safe }}", "{{ '<b>' }}{{ '<b>'|safe }}",
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\\n' + m.content | trim + '\\n' }}{% endfor %}",
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ loop.index0 }}{% endif %}{% endfor %}",
    "{%- for m in messages %}\n    {%- if m.role == 'user' %}\n        {{- 'U: ' ~ m.content }}\n    {%- endif %}\n{%- endfor %}\n",
    "{% generation %}x{% endgeneration %}", "a{% generation %}{% set y = 1 %}{{ y }}{% endgeneration %}{{ y is defined }}",
    "{% for i in list %}{% generation %}{{ loop.index }}{{ i }}{% endgeneration %}{% endfor %}", "{{- '\\n' -}} x", "{{ 'a' 'b' ~ 'c' }}",
    "{% set x = messages[0]['content'] if messages[0]['role'] == 'system' else '' %}{{ x }}",
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% else %}{% set loop_messages = messages %}{% endif %}"
    "{{ loop_messages|length }}", "{% set g = messages|map(attribute='role') %}{{ g|list }}{{ g|list }}", "{% set g = list|map('string') %}{{ g|first }}{{ g|list }}",
]


def main():
    templates = []
    for line in EXPRESSIONS.strip().splitlines():
        templates += ["{{ " + expression + " }}" for expression in line.split(" @ ")]
    vectors = []
    for template in dict.fromkeys(templates + STATEMENTS):
        try:
            text = _compile_jinja_template(template).render(**VARIABLES)
        except Exception:
            text = None
        vectors.append([template, text])
    path = pathlib.Path(__file__).resolve().parent.parent / "data" / "chat" / "jinja.json"
    document = {"jinja2": jinja2.__version__, "transformers": transformers.__version__, "variables": VARIABLES, "vectors": vectors}
    path.write_text(json.dumps(document, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    print(len(vectors), sum(text is None for _, text in vectors), "errors")


if __name__ == "__main__":
    main()
