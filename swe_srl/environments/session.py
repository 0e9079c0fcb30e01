"""What stays of one command for the next in a session: the directory and the exported variables, as bash itself writes them.

Invariant: a command that changes neither changes no file, and nothing here is seen in its output or its exit status.
"""

_SESSION_FOLDER = "/var/lib/swe-srl"
SESSION_FILE = f"{_SESSION_FOLDER}/session"
"""A bash script that brings the state back."""
_NEW_SESSION = "/dev/shm/swe-srl-session"
# The state of the long-lived shell is kept in a file: whatever copies the container's files copies the shell's state too. It is
# written only where it has changed, so that a command that changed nothing leaves the files as they were. Builtins alone, and by
# that name: a process would take a millisecond, and a command may define functions of any name. Where the memory is full there
# is a slower way; where the disk is, the state stays as it was.
_SAVE_SESSION = f"""\
builtin set +euxv; builtin trap - DEBUG ERR; _swe_srl_save() {{ :; }}; \
_swe_srl_print() {{ builtin export -p && builtin printf "cd -- %q || cd .\\n" "$PWD" && if [[ $OLDPWD ]]; \
then builtin printf "OLDPWD=%q\\n" "$OLDPWD"; else builtin echo "unset -v OLDPWD; export OLDPWD"; fi; }}; \
if _swe_srl_print >| {_NEW_SESSION}; then IFS= builtin read -r -d "" _swe_srl_new < {_NEW_SESSION}; \
else _swe_srl_new=$(_swe_srl_print; builtin echo .); _swe_srl_new=${{_swe_srl_new%.}}; fi; \
_swe_srl_old=; IFS= builtin read -r -d "" _swe_srl_old < {SESSION_FILE}; \
[[ $_swe_srl_new == "$_swe_srl_old" ]] || {{ [[ -d {_SESSION_FOLDER} ]] || builtin command -p mkdir -p {_SESSION_FOLDER}; \
builtin printf %s "$_swe_srl_new" >| {SESSION_FILE} || builtin printf %s "$_swe_srl_old" >| {SESSION_FILE}; }}"""
# On `exit` too. One line, so that bash counts the lines of the command itself from 1.
SESSION_SCRIPT = f"""\
if [ -f {SESSION_FILE} ]; then . {SESSION_FILE}; fi; _swe_srl_save() {{ {_SAVE_SESSION}; }}; \
trap "{{ _swe_srl_save; }} > /dev/null 2>&1" EXIT; eval "$1"; \
{{ _swe_srl_code=$?; _swe_srl_save; }} > /dev/null 2>&1; builtin exit $_swe_srl_code"""
