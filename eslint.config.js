import js from '@eslint/js';
import tseslint from 'typescript-eslint';

/** Only src/core/native.ts loads the addons; `.dependency-cruiser.cjs` closes the other door (`createRequire`). */
const noAddonLoading = {
  selector: "MemberExpression[object.name='process'][property.name='dlopen']",
  message: 'Only src/core/native.ts loads the addons.',
};

export default tseslint.config(
  { ignores: ['dist/', 'test/powercut/.built/', 'bench/.built/', 'node_modules/', 'native/build/', 'coverage/', '**/*.html'] },
  js.configs.recommended,
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.strictTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      '@typescript-eslint/no-floating-promises': ['error', { ignoreVoid: false }],
      '@typescript-eslint/no-misused-promises': 'error',
      '@typescript-eslint/await-thenable': 'error',
      '@typescript-eslint/return-await': ['error', 'in-try-catch'],
      '@typescript-eslint/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
      '@typescript-eslint/no-explicit-any': 'error',
      '@typescript-eslint/consistent-type-imports': ['error', { fixStyle: 'inline-type-imports' }],
      '@typescript-eslint/only-throw-error': 'error',
      '@typescript-eslint/prefer-promise-reject-errors': 'error',
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true, allowBoolean: true }],
      // An index that a loop has just bounded is proved; the compiler cannot see it.
      '@typescript-eslint/no-non-null-assertion': 'off',
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
      'no-restricted-syntax': ['error', noAddonLoading],
      eqeqeq: ['error', 'always', { null: 'ignore' }],
    },
  },
  { files: ['src/core/native.ts'], rules: { 'no-restricted-syntax': 'off' } },
  {
    files: ['**/*.js', '**/*.mjs', '**/*.cjs'],
    languageOptions: {
      globals: Object.fromEntries(
        ['process', 'console', 'Buffer', 'URL', 'globalThis', 'setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'fetch',
          'AbortController', 'AbortSignal', 'performance', 'module', 'require', '__dirname'].map((name) => [name, 'readonly']),
      ),
    },
  },
  { files: ['**/*.cjs', 'bin/*.js'], languageOptions: { sourceType: 'commonjs' } },
  { linterOptions: { reportUnusedDisableDirectives: 'error' } },
);
