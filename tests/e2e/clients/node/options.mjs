// The command line that the Node programs share, as options.py is for Python.

const [verb, ...rest] = process.argv.slice(2);
const options = Object.fromEntries(rest.map((pair) => [pair.split("=")[0], pair.slice(pair.indexOf("=") + 1)]));

export { options, verb };
export const say = (text) => process.stdout.write(text + "\n");
